"""Calls that come when they like: the highest Poisson rate that keeps a bound, and what an overload leaves of a server.

It knows open loops and rates; neither peers nor how results are shown.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from layerwire_bench.conductor import LatencyBound, why_missed
from layerwire_bench.measuring.measurement import TargetLostError
from layerwire_bench.measuring.search import Bisection
from layerwire_bench.plan import Pace, TargetSpec
from layerwire_bench.result import Load
from tools.benchmarks import lines, loads, processes, servers
from tools.benchmarks.contenders import Session, Turn, processor_time
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
OVERLOAD_TITLE = "overload: Poisson arrivals of a deep CNN over capacity, deadlines of 1 s"
_CAPACITY_CALLERS = 64
_BEFORE = {1.5: "0.10 to 0.16", 3.0: "0.07", 6.0: "0.02"}
_LONGEST_SETTLING_SECONDS = 30.0
_LEAST_OVERLOAD_SECONDS = 3.0
_STEADY_SECONDS = 3.0  # until what waits, and what the client learns of it, is as it will be


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


def overload(count: int, seconds: float, watch: Watch) -> Result:
    """Calls a second that were answered within their deadline, at several times the capacity measured beside it.

    The load tester has a core of its own and the server the others, where there are several, so that what calls cost
    their sender takes nothing from who answers them. Capacity is measured before and after each overload, once the
    server tries no more kernels.
    """
    watch(OVERLOAD_TITLE)
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        with _on_cores(cores[1:] or cores):
            ours = stack.enter_context(servers.server(*servers.LAYERWIRE))
        loads.prepare(ours.address)
        workload = lines.program(loads.DEEP_CNN)(ours.address)
        with _on_cores(cores[:1]):
            session = Session(workload, [TargetSpec("stream", ours.address)], DEADLINE_SECONDS)
        stack.callback(session.close)
        settled = _settle(session, ours, watch)
        turns, notes = _overload_rounds(session, count, seconds, watch)
    claims = tuple(
        Claim(f"goodput at {times:g} times the capacity, of the capacity", (_name(times),), (_capacity_name(times),),
              0.9, _BEFORE[times])
        for times in OVERLOADS
    )  # fmt: skip
    where = "a core of its own" if len(cores) > 1 else "the server's core"
    notes = [*settled, f"the load tester has {where}; p50 and p99 are of calls that were answered", *notes]
    return Result(OVERLOAD_TITLE, turns, claims, notes=notes)


@contextlib.contextmanager
def _on_cores(cores: Iterable[int]) -> Iterator[None]:
    """What is started meanwhile may use these alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _settle(session: Session, ours: Server, watch: Watch) -> list[str]:
    """Calls until no kernel has been tried for a while; a sentence if that never was."""
    pace = Pace(0.5, 0.5, duration_seconds=1.5)
    trials, end = -1.0, time.monotonic() + _LONGEST_SETTLING_SECONDS
    while time.monotonic() < end:
        rate = session.outcome(0, Load("closed", callers=_CAPACITY_CALLERS), pace).point.throughput
        _overload_turn(session, OVERLOADS[0] * rate, 1.0)
        before, trials = trials, _trials(ours)
        watch(f"{trials:g} kernels tried")
        if trials == before:
            return []
    return [f"kernels were still being tried after {_LONGEST_SETTLING_SECONDS:g} s"]


def _trials(ours: Server) -> float:
    """Trials of kernels that the server's metrics tell of."""
    with urllib.request.urlopen(f"http://{ours.metrics}/metrics", timeout=10) as page:
        families = text_string_to_metric_families(page.read().decode())
    return sum(
        sample.value for family in families for sample in family.samples
        if sample.name == "layerwire_kernel_trials_total"
    )  # fmt: skip


def _overload_rounds(
    session: Session, count: int, seconds: float, watch: Watch
) -> tuple[dict[str, list[Turn]], list[str]]:
    """Turns by name, and what else is to be told."""
    turns: dict[str, list[Turn]] = {name(times): [] for times in OVERLOADS for name in (_capacity_name, _name)}
    cores: dict[float, list[dict[str, float]]] = {times: [] for times in OVERLOADS}
    unsent = dict.fromkeys(OVERLOADS, 0)
    neighbours = processes.Neighbours()
    for number in range(1, count + 1):
        before = _capacity_turn(session, seconds)
        for times in OVERLOADS:
            start = time.monotonic()
            with processor_time(os.getpid()) as used:
                turn, more = _overload_turn(session, times * before.throughput, max(seconds, _LEAST_OVERLOAD_SECONDS))
            cores[times].append({name: usage.seconds / (time.monotonic() - start) for name, usage in used.items()})
            after = _capacity_turn(session, seconds)
            turns[_capacity_name(times)].append(_mean(before, after))
            turns[_name(times)].append(turn)
            unsent[times] += more
            share = 2 * turn.throughput / (before.throughput + after.throughput)
            watch(f"round {number} of {count}, {times:g} times: {share:.0%} of capacity, {turn.failures:,} failed")
            before = after
    notes = [f"at {times:g} times: {_cores_sentence(several)}" for times, several in cores.items()]
    notes += [
        f"at {times:g} times the load tester could not send {more:,} calls" for times, more in unsent.items() if more
    ]
    others = neighbours.ratio()
    if others is not None:
        notes.append(f"others used {others:.0%} of the machine's cores meanwhile")
    return turns, notes


def _cores_sentence(several: Sequence[Mapping[str, float]]) -> str:
    """What processes used, in cores, the median of several times."""
    names = {"load tester": "python", "worker": "worker", "gateway": "gateway"}
    shares = {name: statistics.median(one.get(role, 0.0) for one in several) for name, role in names.items()}
    return ", ".join(f"{name} {share:.2f}" for name, share in shares.items()) + " cores"


def _capacity_turn(session: Session, seconds: float) -> Turn:
    """What callers that wait get."""
    pace = Pace(0.5, 0.25, duration_seconds=seconds)
    point = session.outcome(0, Load("closed", callers=_CAPACITY_CALLERS), pace).point
    assert point.latency is not None
    return Turn(point.throughput, point.latency.p50_seconds, point.latency.p99_seconds)


def _mean(one: Turn, other: Turn) -> Turn:
    """The turn between two."""
    return Turn(
        (one.throughput + other.throughput) / 2, (one.p50_seconds + other.p50_seconds) / 2,
        (one.p99_seconds + other.p99_seconds) / 2,
    )  # fmt: skip


def _overload_turn(session: Session, rate: float, seconds: float) -> tuple[Turn, int]:
    """Calls a second that were answered in time, nothing where it was none at all; and how many were never sent."""
    pace = Pace(_STEADY_SECONDS, 1.0, duration_seconds=seconds)
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


def _capacity_name(times: float) -> str:
    return f"capacity before and after: {_CAPACITY_CALLERS} callers that wait; beside {times:g} times"
