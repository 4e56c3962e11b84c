"""What is held against measurements: the best of either side, ratios of medians, and who has his turn when."""

import pytest
from tools.benchmarks import tables
from tools.benchmarks.contenders import Contender, InProcessContender, Turn
from tools.benchmarks.results import Claim, Result, rounds

FAST, SLOW = [Turn(100, 0.01, 0.02), Turn(300, 0.01, 0.02), Turn(120, 0.01, 0.02)], [Turn(60, 0.03, 0.04)] * 3
TURNS = {"stream": FAST, "unary": SLOW, "peer": [Turn(50, 0.02, 0.02)] * 3, "other peer": [Turn(40, 0.02, 0.02)] * 3}


def claim(bound, figure="throughput", theirs=("peer", "other peer")):
    return Claim("relu", ("stream", "unary"), theirs, bound, figure=figure)


def test_the_best_of_ours_stands_against_the_best_of_theirs():
    assert claim(2.0).ratio(TURNS) == ("stream", "peer", 2.4, 2.0, 6.0, None)


def test_of_latencies_the_least_is_the_best():
    assert claim(1.1, "p50_seconds").ratio(TURNS) == ("stream", "peer", 0.5, 0.5, 0.5, None)


def test_a_call_that_costs_half_is_twice_as_cheap():
    ours = [Turn(100, 0.01, 0.02, {"client": 10.0, "worker": 20.0})] * 3
    theirs = [Turn(50, 0.02, 0.02, {"client": 15.0, "mosec": 45.0})] * 3
    assert claim(2.0).ratio({"stream": ours, "peer": theirs}).cheaper == 2.0


@pytest.mark.parametrize(
    ("bound", "figure", "reached"), [(2.4, "throughput", True), (2.5, "throughput", False), (0.4, "p50_seconds", False)]
)
def test_a_claim_is_reached_at_its_bound(bound, figure, reached):
    one = claim(bound, figure)
    assert one.is_reached(one.ratio(TURNS)) is reached


def test_a_claim_without_peers_is_not_measured():
    one = claim(2.0, theirs=("mosec",))
    assert one.ratio(TURNS) is None
    assert "| relu | at least 2 | not measured" in tables.claims([Result("relu", TURNS, (one,))])


def test_a_table_says_what_failed_and_what_a_call_costs_each_process():
    turns = [Turn(1000, 0.001, 0.002, {"worker": 30.4, "gateway": 10.0, "supervisor": 0.1}, failures=2)]
    text = tables.result(Result("relu", {"stream": turns}, notes=["what was sent"]))
    assert "| stream | 1,000 | 1,000 | 1,000 | 1 | 2 | 40: worker 30, gateway 10; 2 calls failed |" in text
    assert text.endswith("What was sent.")


def test_rounds_go_there_and_back():
    order = []

    class Noted(Contender):
        def turn(self, callers, seconds):
            order.append(self.name)
            return Turn(1, 1, 1)

    turns = rounds([Noted("a"), Noted("b")], 8, 3, 1.0, lambda _: None)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(some) for name, some in turns.items()} == {"a": 3, "b": 3}


def test_a_function_counts_its_rows_and_its_processor_time(monkeypatch):
    monkeypatch.setattr("tools.benchmarks.contenders.WARMUP_SECONDS", 0.0)
    calls = []
    turn = InProcessContender("torch", lambda: calls.append(sum(range(20_000))), 32).turn(1, 0.05)
    assert turn.throughput == pytest.approx(32 / turn.p50_seconds, rel=0.9)
    assert set(turn.cpu_microseconds) == {"client"}
    assert calls
