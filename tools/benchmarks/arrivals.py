"""Calls that come when they like: the highest Poisson rate that keeps a bound, and what an overload leaves of a server.

It knows open loops and rates; neither peers nor how results are shown.
"""

from __future__ import annotations

import statistics

from layerwire_bench.conductor import LatencyBound, why_missed
from layerwire_bench.measuring.measurement import TargetLostError
from layerwire_bench.measuring.search import Bisection
from layerwire_bench.plan import Pace, TargetSpec
from layerwire_bench.result import Load
from tools.benchmarks import lines, loads
from tools.benchmarks.contenders import Session, Turn
from tools.benchmarks.lines import BARE, STREAM
from tools.benchmarks.results import Claim, Result, Watch
from tools.benchmarks.servers import Server

BOUND_SECONDS = 0.005
SEARCH_TITLE = "Poisson arrivals of relu, highest rate with p99 at most 5 ms"
SEARCHES = 2  # of both; they are long
LEAST_RATE = 100.0  # below it, what is measured is the machine
_SEARCH_PACE = Pace(warmup_seconds=0.5, window_seconds=0.5, duration_seconds=1.5)
_CAPACITY_PACE = Pace(warmup_seconds=0.5, window_seconds=0.5, duration_seconds=1.0)
_START_SHARE = 0.4  # of what callers that wait get, at which a search begins

DEADLINE_SECONDS = 1.0
OVERLOADS = (1.5, 3.0, 6.0)
CAPACITY = "capacity: 64 callers that wait"
OVERLOAD_TITLE = "overload: Poisson arrivals of a deep CNN over capacity, deadlines of 1 s"
_CAPACITY_CALLERS = 64
_BEFORE = {1.5: "0.10 to 0.16", 3.0: "0.07", 6.0: "0.02"}


def search(ours: Server, bare: Server, watch: Watch) -> Result:
    """Searches for both, trial by trial in turn, so that both meet the same neighbours on the machine."""
    watch(SEARCH_TITLE)
    workload = lines.operator("relu", 1, 10)(ours.address)
    specs = [TargetSpec("stream", ours.address), TargetSpec("unary", bare.address)]
    turns: dict[str, list[Turn]] = {STREAM: [], BARE: []}
    notes = ["a rate is tried again before it counts as missed, since neighbours on the machine can only spoil it"]
    session = Session(workload, specs)
    try:
        for number in range(1, SEARCHES + 1):
            best = [turn for turn in _search_turns(session, watch) if turn is not None]
            if len(best) < len(turns):
                notes.append(
                    f"a search is left out: the machine was too busy for {LEAST_RATE:g} calls/s within the bound"
                )
                continue
            for name, turn in zip(turns, best, strict=True):
                turns[name].append(turn)
                watch(f"search {number} of {SEARCHES}, {name}: {turn.throughput:,.0f}/s")
    finally:
        session.close()
    claim = Claim("relu, Poisson arrivals, highest rate with p99 at most 5 ms, against bare grpc.aio",
                  (STREAM,), (BARE,), 3.0, "0.42")  # fmt: skip
    return Result(SEARCH_TITLE, turns, (claim,), notes=notes)


def _search_turns(session: Session, watch: Watch) -> list[Turn | None]:
    """The highest rates that kept the bound with the latencies at them, None where none did; by target."""
    rates = [session.outcome(target, Load("closed", callers=32), _CAPACITY_PACE).point.throughput for target in (0, 1)]
    bisections = [Bisection(rate * _START_SHARE, least=LEAST_RATE) for rate in rates]
    best: list[Turn | None] = [None, None]
    searches = {0, 1}
    while searches:
        for target in sorted(searches):
            rate = bisections[target].next_rate()
            if rate is None:
                searches.remove(target)
                continue
            turn = _trial(session, target, rate) or _trial(session, target, rate)
            bisections[target].record(rate, success=turn is not None)
            before = best[target]
            if turn is not None and (before is None or rate >= before.throughput):
                best[target] = turn
            watch(f"{(STREAM, BARE)[target]}, {rate:,.0f}/s: {'missed' if turn is None else 'kept'}")
    return best


def _trial(session: Session, target: int, rate: float) -> Turn | None:
    """What a rate gave where it kept the bound."""
    try:
        outcome = session.outcome(target, Load("poisson", rate=rate), _SEARCH_PACE, BOUND_SECONDS)
    except TargetLostError:
        return None
    latency = outcome.point.latency
    if why_missed(outcome, LatencyBound(BOUND_SECONDS)) is not None or latency is None:
        return None
    return Turn(rate, latency.p50_seconds, latency.p99_seconds, checks=outcome.point.verified)


def overload(ours: Server, count: int, seconds: float, watch: Watch) -> Result:
    """Calls a second that were answered within their deadline, at several times the capacity measured beside it."""
    watch(OVERLOAD_TITLE)
    workload = lines.program(loads.DEEP_CNN)(ours.address)
    turns: dict[str, list[Turn]] = {CAPACITY: [], **{_name(times): [] for times in OVERLOADS}}
    notes = []
    session = Session(workload, [TargetSpec("stream", ours.address)], DEADLINE_SECONDS)
    steady = Pace(1.0, 0.25, duration_seconds=seconds)
    try:
        for number in range(1, count + 1):
            closed = session.outcome(0, Load("closed", callers=_CAPACITY_CALLERS), steady).point
            assert closed.latency is not None
            capacity = closed.throughput
            turns[CAPACITY].append(Turn(capacity, closed.latency.p50_seconds, closed.latency.p99_seconds))
            watch(f"round {number} of {count}, capacity {capacity:,.0f}/s")
            for times in OVERLOADS:
                turn, unsent = _overload_turn(session, times * capacity, max(seconds, 3.0))
                turns[_name(times)].append(turn)
                share = turn.throughput / capacity
                watch(f"round {number} of {count}, {times:g} times: {share:.0%} of capacity, {turn.failures:,} failed")
                if unsent:
                    notes.append(f"at {times:g} times the load tester could not send {unsent:,} calls")
    finally:
        session.close()
    claims = tuple(
        Claim(f"goodput at {times:g} times the capacity, of the capacity", (_name(times),), (CAPACITY,), 0.9,
              _BEFORE[times])
        for times in OVERLOADS
    )  # fmt: skip
    mean = statistics.mean(turn.throughput for turn in turns[CAPACITY])
    notes.append(f"capacity {mean:,.0f} calls/s; p50 and p99 are of calls that were answered")
    return Result(OVERLOAD_TITLE, turns, claims, notes=notes)


def _overload_turn(session: Session, rate: float, seconds: float) -> tuple[Turn, int]:
    """Calls a second that were answered in time, nothing where it was none at all; and how many were never sent."""
    pace = Pace(2.0, 1.0, duration_seconds=seconds)
    try:
        outcome = session.outcome(0, Load("poisson", rate=rate), pace, DEADLINE_SECONDS)
    except TargetLostError as lost:  # which is what the load tester makes of windows without an answer
        return Turn(0.0, 0.0, 0.0, failures=0 if lost.point is None else lost.point.failures), 0
    point, latency = outcome.point, outcome.point.latency
    p50, p99 = (0.0, 0.0) if latency is None else (latency.p50_seconds, latency.p99_seconds)
    goodput = outcome.within_bound / point.seconds
    return Turn(goodput, p50, p99, failures=point.failures, checks=point.verified), point.unsent


def _name(times: float) -> str:
    return f"{times:g} times the capacity, answered in time"
