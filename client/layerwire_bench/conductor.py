"""Conducts a load test from its plan to what it found: sweeps, searches, comparisons.

It knows plans and measurements; neither the command line nor how a run is shown while it goes on or afterwards.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from layerwire_bench import machine
from layerwire_bench.calling.loops import MAX_IN_FLIGHT
from layerwire_bench.calling.processes import ClientProcessError, ClientProcesses
from layerwire_bench.measuring import bottleneck, comparison
from layerwire_bench.measuring.measurement import EarlyEndError, InterruptError, Measurement, Outcome, TargetSetup
from layerwire_bench.measuring.search import Bisection
from layerwire_bench.plan import Job, Pace
from layerwire_bench.result import Kind, Load, Mode, Point, Run, Search, ServerInfo, Trial, Window
from layerwire_bench.servers.readings import Counters

_CAPACITY_CALLERS = 32  # in the closed loop that guesses where a search begins
_CAPACITY_SHARE = 0.5
_CAPACITY_PACE = Pace(warmup_seconds=0.5, window_seconds=0.5, duration_seconds=1.0)
_ANSWERED_SHARE = 0.95  # of the calls that were due, that must have been answered meanwhile
_SPARE_CALLS = 20  # on their way at the end
MAX_PROCESSES = 32


@dataclass(frozen=True)
class LatencyBound:
    """Of a search: a latency that this percentile of all calls must keep; what fails has missed it."""

    seconds: float
    percentile: float = 99.0
    mode: Mode = "poisson"
    least_rate: float | None = None
    most_rate: float | None = None


@dataclass(frozen=True)
class Plan:
    """A load test.

    Attributes:
        job: targets, workload, and how answers are checked. Several targets are compared with the first.
        loads: one after the other; none for a search.
        processes: client processes; None for as many as it takes.
        rounds: of a comparison.
        bound: of a search.
        counters: each target's own; None where there are none.
        servers: what the targets said of themselves.
        command: the command line.
        notes: sentences to be shown with the result.
    """

    job: Job
    loads: tuple[Load, ...]
    pace: Pace
    processes: int | None
    rounds: int
    bound: LatencyBound | None
    counters: tuple[Counters[Any] | None, ...]
    servers: tuple[ServerInfo, ...]
    command: str
    notes: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """What sort of test it is."""
        if self.bound is not None:
            return "search"
        return "comparison" if len(self.job.targets) > 1 else "sweep"

    @property
    def points(self) -> int | None:
        """How many will be measured; None of a search."""
        rounds = self.rounds if self.kind == "comparison" else 1
        return None if self.bound is not None else len(self.loads) * len(self.job.targets) * rounds


class Watcher(Protocol):
    """Who looks on."""

    def begins(self, target: str, load: Load, number: int) -> None:
        """A point is about to be measured, `number` from 1."""

    def window(self, load: Load, window: Window) -> None:
        """A window is over."""

    def ends(self, point: Point) -> None:
        """A point was measured."""

    def says(self, sentence: str) -> None:
        """Something happened that whoever waits should know."""


class Conductor:
    """One run."""

    def __init__(self, plan: Plan, watcher: Watcher) -> None:
        self._plan = plan
        self._watcher = watcher
        self._count = plan.processes or 1
        self._processes: ClientProcesses | None = None
        self._epoch = time.monotonic()
        self._start_time = dt.datetime.now().astimezone().isoformat(timespec="seconds")
        self._points: list[Point] = []
        self._trials: list[Trial] = []
        self._bisection: Bisection | None = None

    def run(self) -> Run:
        """The whole of it. What ends it early is told in the run; what was measured before stays.

        Raises:
            ClientProcessError: it could not even begin.
            KeyboardInterrupt: Ctrl-C before it began.
        """
        interrupt, failure = False, None
        work: dict[Kind, Callable[[], None]] = {
            "sweep": self._sweep, "comparison": self._compare, "search": self._search,
        }  # fmt: skip
        try:
            self._start_processes()
            try:
                work[self._plan.kind]()
            except EarlyEndError as early:
                interrupt = isinstance(early, InterruptError)
                failure = None if interrupt else str(early)
            except KeyboardInterrupt:
                interrupt = True
            except ClientProcessError as error:
                failure = str(error)
        finally:
            if self._processes is not None:
                self._processes.close()
        return self._run(failure, interrupt=interrupt)

    def _start_processes(self) -> None:
        if self._processes is not None:
            self._processes.close()
        self._processes = ClientProcesses(self._plan.job, self._count)

    def _sweep(self) -> None:
        for load in self._plan.loads:
            self._keep(self._measure(0, load).point)

    def _compare(self) -> None:
        for load in self._plan.loads:
            for number in range(1, self._plan.rounds + 1):
                for target in comparison.turns(len(self._plan.job.targets), number):
                    self._keep(self._measure(target, load, number).point)

    def _search(self) -> None:
        bound = self._plan.bound
        assert bound is not None
        start = bound.least_rate or bound.most_rate or self._capacity() * _CAPACITY_SHARE
        self._bisection = bisection = Bisection(start, bound.least_rate, bound.most_rate)
        while (rate := bisection.next_rate()) is not None:
            outcome = self._measure(0, Load(bound.mode, rate=rate), bound_seconds=bound.seconds)
            reason = why_missed(outcome, bound)
            bisection.record(rate, success=reason is None)
            self._trials.append(Trial(len(self._points), rate, reason is None, reason))
            self._keep(outcome.point)
            self._watcher.says(f"{rate:,.0f}/s: {reason or 'kept'}")

    def _capacity(self) -> float:
        """About how many calls per second callers that wait for their answers get. Not part of the result."""
        self._watcher.says(f"looking where to begin, with {_CAPACITY_CALLERS} callers")
        load = Load("closed", callers=_CAPACITY_CALLERS)
        return max(Measurement(self._setup(0, _CAPACITY_PACE), load).run().point.throughput, 1.0)

    def _keep(self, point: Point) -> None:
        self._points.append(point)
        self._watcher.ends(point)

    def _setup(self, target: int, pace: Pace) -> TargetSetup:
        plan, spec = self._plan, self._plan.job.targets[target]
        assert self._processes is not None
        return TargetSetup(
            self._processes, plan.job.workload, pace, (target, str(spec)), plan.counters[target],
            self._watcher.window, self._epoch, plan.job.timeout_seconds, spec.address is not None,
        )  # fmt: skip

    def _measure(self, target: int, load: Load, number: int = 0, bound_seconds: float = float("inf")) -> Outcome:
        """One point; measured again with more client processes where one can't do it and may have more."""
        spec = self._plan.job.targets[target]
        while True:
            self._watcher.begins(str(spec), load, len(self._points) + 1)
            try:
                outcome = Measurement(self._setup(target, self._plan.pace), load, bound_seconds).run()
            except EarlyEndError as early:
                if early.point is not None:
                    self._keep(replace(early.point, round=number))
                where = f"{spec}, {time.monotonic() - self._epoch:.1f} s into the run: "
                raise type(early)(f"{where}{early}", early.point) from None
            if not self._wants_more(outcome.point):
                return replace(outcome, point=replace(outcome.point, round=number))
            self._count = min(self._count * 2, MAX_PROCESSES)
            self._watcher.says(f"one event loop isn't enough: again with {self._count} client processes")
            self._start_processes()

    def _wants_more(self, point: Point) -> bool:
        """Whether the client held the server back, and there are cores for more processes of it."""
        busy = point.client.machine_busy_ratio
        return (
            self._plan.processes is None
            and self._plan.kind != "comparison"  # whose rounds must be alike
            and point.client.busiest_cpu_ratio >= bottleneck.FULL
            and busy is not None
            and busy < bottleneck.CROWDED
            and self._count < min(machine.cores(), MAX_PROCESSES)
        )

    def _run(self, failure: str | None, *, interrupt: bool) -> Run:
        plan, points, bisection, search = self._plan, tuple(self._points), self._bisection, None
        if plan.bound is not None:
            rates = (None, None) if bisection is None else (bisection.highest_kept, bisection.lowest_missed)
            search = Search(plan.bound.percentile, plan.bound.seconds, *rates, tuple(self._trials))
        verify = plan.job.verify
        return Run(
            plan.command, self._start_time, time.monotonic() - self._epoch, plan.kind,
            tuple(entry.description for entry in plan.job.workload.entries),
            "off" if verify == "off" else f"{verify}, with {plan.job.workload.reference}", machine.machine(),
            plan.servers, points, comparison.ratios(points) if plan.kind == "comparison" else (), search,
            (*plan.notes, *_notes(points)), interrupt, failure,
        )  # fmt: skip


def why_missed(outcome: Outcome, bound: LatencyBound) -> str | None:
    """Why a rate didn't keep the bound; None if it did.

    Every call that was due counts, also those that failed or never ended; and about as many must have been answered as
    were due, or a queue was growing.
    """
    point = outcome.point
    if not outcome.due:
        return "no call ended"
    share = outcome.within_bound / outcome.due
    if share * 100 < bound.percentile:
        late = f"{share:.1%} of calls within {bound.seconds * 1e3:g} ms"
        return f"{late}, {point.failures:,} failed" if point.failures else late
    if point.calls + point.failures < outcome.due * _ANSWERED_SHARE - _SPARE_CALLS:
        return f"only {point.throughput:,.0f} calls/s were answered, and the others waited ever longer"
    return None


def _notes(points: tuple[Point, ...]) -> tuple[str, ...]:
    """What is true of some points, said once."""
    places: dict[str, list[str]] = {}
    for point in points:
        if point.client.bottleneck is not None:
            places.setdefault(point.client.bottleneck, []).append(f"{point.load} on {point.target}")
    notes = [f"{why[0].upper()}{why[1:]}. So it was at {', '.join(dict.fromkeys(at))}." for why, at in places.items()]
    if any(not point.calls for point in points):
        why = "calls take longer than they last: --window makes them longer"
        notes.append(f"Where no call ended within the windows, {why}.")
    unsent = ", ".join(f"{point.unsent:,} at {point.load}" for point in points if point.unsent)
    if unsent:
        why = f"since {MAX_IN_FLIGHT:,} of a client process were unanswered"
        notes.append(f"Calls that were due and never sent, {why}: {unsent}. There, latencies are lower bounds.")
    unsteady = [str(point.load) for point in points if not point.steady]
    if unsteady:
        notes.append(f"Not steady: {', '.join(dict.fromkeys(unsteady))}.")
    return tuple(dict.fromkeys(notes))
