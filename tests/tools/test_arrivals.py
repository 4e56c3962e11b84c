"""Searches for two servers trial by trial, and goodput of a server that answers nothing."""

from types import SimpleNamespace

import pytest
from tools.benchmarks import arrivals

from layerwire_bench.measuring.measurement import TargetLostError

LIMITS = (5000.0, 900.0)  # calls per second that the targets keep the bound at
LATENCY = SimpleNamespace(p50_seconds=0.001, p99_seconds=0.004)


class FakeSession:
    """Targets that keep the bound up to a rate, and every third trial miss it whatever it is."""

    def __init__(self, noise=0):
        self.trials = []
        self.noise = noise

    def outcome(self, target, load, pace, bound_seconds=None):
        due = 1000
        if load.mode == "closed":
            return _outcome(2 * LIMITS[target], due, due)
        self.trials.append(target)
        if load.rate > 4 * LIMITS[target]:
            raise TargetLostError("no answer any more", None)
        spoilt = self.noise and len(self.trials) % self.noise == 0
        return _outcome(load.rate, 0 if load.rate > LIMITS[target] or spoilt else due, due)


def _outcome(throughput, within, due):
    point = SimpleNamespace(
        throughput=throughput, latency=LATENCY, failures=0, calls=due, verified=3, seconds=1.0, unsent=0
    )
    return SimpleNamespace(point=point, within_bound=within, due=due)


@pytest.mark.parametrize("noise", [0, 3])
def test_both_searches_find_their_limits_in_turn(noise):
    session = FakeSession(noise)
    turns = arrivals._search_turns(session, lambda _: None)
    for turn, limit in zip(turns, LIMITS, strict=True):
        assert limit / 1.06 <= turn.throughput <= limit
    assert set(session.trials[:4]) == {0, 1}  # neither goes through its search alone


def test_a_machine_too_busy_for_any_rate_gives_none():
    assert arrivals._search_turns(FakeSession(noise=1), lambda _: None) == [None, None]


def test_no_answer_at_all_is_no_goodput():
    lost = SimpleNamespace(outcome=lambda *_: (_ for _ in ()).throw(TargetLostError("no answer any more", None)))
    turn, unsent = arrivals._overload_turn(lost, 1000.0, 3.0)
    assert (turn.throughput, unsent) == (0.0, 0)


def test_goodput_is_what_was_answered_in_time():
    session = SimpleNamespace(outcome=lambda *_: _outcome(500.0, 450, 1000))
    turn, _ = arrivals._overload_turn(session, 1000.0, 3.0)
    assert turn.throughput == 450.0
