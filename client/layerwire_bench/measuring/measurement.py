"""One load on one target, measured: windows until they agree, then the point.

It knows client processes' reports and figures; neither targets' protocols nor how runs are shown.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layerwire_bench.calling.process import EndReport, WindowReport
from layerwire_bench.calling.processes import ClientProcessError, ClientProcesses
from layerwire_bench.calling.tally import Notes
from layerwire_bench.measuring import bottleneck, figures
from layerwire_bench.measuring.bottleneck import Ticks, Usage
from layerwire_bench.measuring.figures import PointFigures
from layerwire_bench.plan import Pace
from layerwire_bench.result import Load, Point, Server, Window
from layerwire_bench.servers.readings import Counters
from layerwire_bench.workload import Workload

_SILENT_WINDOWS = 3  # in a row without an answer, after which a target is given up
_SILENT_CODES = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
_PATIENCE_SECONDS = 15.0  # beyond what a report should take


class EarlyEndError(Exception):
    """The measurement ended before it was done. `point` is what was measured, None for nothing."""

    def __init__(self, message: str, point: Point | None) -> None:
        super().__init__(message)
        self.point = point


class TargetLostError(EarlyEndError):
    """The target stopped answering."""


class InterruptError(EarlyEndError):
    """Ctrl-C."""


@dataclass(frozen=True)
class Outcome:
    """A point, and how many of all calls that were due succeeded within the bound."""

    point: Point
    within_bound: int
    due: int


@dataclass(frozen=True)
class TargetSetup:
    """What all measurements of a target have in common.

    Attributes:
        target: its index in the job of the client processes, and how the user spelled it.
        counters: the server's own; None where there are none.
        watch: is told of each window.
        epoch: time.monotonic() when the run began.
        timeout_seconds: of a call.
        remote: whether calls leave the client, so that it matters what the client itself uses.
    """

    processes: ClientProcesses
    workload: Workload
    pace: Pace
    target: tuple[int, str]
    counters: Counters[Any] | None
    watch: Callable[[Load, Window], None]
    epoch: float
    timeout_seconds: float
    remote: bool


class Measurement:
    """One load on one target; `bound_seconds` is the bound of `Outcome.within_bound`."""

    def __init__(self, setup: TargetSetup, load: Load, bound_seconds: float = math.inf) -> None:
        self._setup = setup
        self._load = load
        self._pace = setup.pace
        self._figures = PointFigures(setup.workload, bound_seconds)
        self._notes: list[Notes] = []  # of calls that may count for the point
        self._recent: list[Notes] = []  # of calls that ended after the last window
        self._windows: list[Window] = []
        self._usages: list[list[Usage]] = []
        self._ticks: list[Ticks | None] = []
        self._marks: dict[int, int] = {}  # window -> reading of the counters at its beginning
        self._reports: dict[int, dict[int, WindowReport]] = {}
        self._ends: dict[int, EndReport] = {}
        self._wrong = 0
        self._answers = 0  # calls that ended, in whatever way
        self._first_error: str | None = None
        self._start = 0.0

    def run(self) -> Outcome:
        """The whole measurement.

        Raises:
            TargetLostError: the target stopped answering.
            InterruptError: Ctrl-C.
            ClientProcessError: a client process died.
        """
        processes = self._setup.processes
        self._start = processes.begin(self._setup.target[0], self._load, self._pace.window_seconds)
        interrupt = False
        try:
            self._boundary()
            while not self._enough() and not self._silent():
                self._next_window()
        except KeyboardInterrupt:
            interrupt = True
        processes.end()
        self._await(lambda: len(self._ends) == len(processes), self._setup.timeout_seconds + 1)
        for number in sorted(self._ends):
            notes = self._ends[number].notes
            self._notes.append(notes)
            self._answers += len(notes.due)
            self._first_error = self._first_error or self._ends[number].first_error
        outcome = self._outcome()
        if interrupt:
            raise InterruptError("interrupted", None if outcome is None else outcome.point)
        if outcome is None or self._silent() or not self._answers:
            why = f": {self._first_error}" if self._first_error else ""
            raise TargetLostError(f"no answer any more{why}", None if outcome is None else outcome.point)
        return outcome

    def _enough(self) -> bool:
        count = len(self._windows) - self._pace.warmup_windows
        if self._pace.duration_windows is not None:
            return count >= self._pace.duration_windows
        return count >= self._pace.max_windows or self._steady()

    def _steady(self) -> bool:
        """Whether the last windows agree."""
        last = self._windows[self._pace.warmup_windows :]
        if len(last) < self._pace.steady_windows:
            return False
        if self._pace.duration_windows is None:
            last = last[-self._pace.steady_windows :]
        medians = [window.p50_seconds for window in last]
        rates = [window.throughput for window in last]
        return all(
            None not in values and min(values) > 0 and max(values) <= min(values) * (1 + self._pace.tolerance)  # type: ignore[type-var,operator]
            for values in (medians, rates)
        )

    def _silent(self) -> bool:
        """Whether the target answers no more."""
        last = self._windows[-_SILENT_WINDOWS:]
        errors = {code for window in last for code in window.errors}
        silent = len(last) == _SILENT_WINDOWS and not any(window.calls for window in last)
        return silent and bool(errors) and errors <= _SILENT_CODES

    def _next_window(self) -> None:
        """Waits for a window to end, and adds it up."""
        number, processes = len(self._windows), self._setup.processes
        end = self._start + (number + 1) * self._pace.window_seconds
        self._await(lambda: len(self._reports.get(number, ())) == len(processes), end - time.monotonic())
        reports = self._reports.pop(number)
        self._usages.append(
            [Usage(process, one.cpu_seconds, one.loop_cpu_seconds, one.lags) for process, one in reports.items()]
        )
        for report in reports.values():
            self._first_error = self._first_error or report.first_error
            self._answers += len(report.notes.due)
            self._notes.append(report.notes)
            self._recent.append(report.notes)
        wrong = sum(report.wrong for report in reports.values())
        window = self._window(number, wrong - self._wrong)
        self._wrong = wrong
        self._windows.append(window)
        self._boundary()
        self._setup.watch(self._load, window)
        if len(self._windows) > self._pace.warmup_windows:
            self._add_up(self._pace.warmup_windows, len(self._windows))

    def _boundary(self) -> None:
        """Reads counters between windows; where a duration is asked for, at its beginning and its end only."""
        self._ticks.append(bottleneck.ticks())
        number, duration = len(self._windows), self._pace.duration_windows
        first = self._pace.warmup_windows
        if self._setup.counters is None or number < first:
            return
        if duration is None or number in (first, first + duration):
            self._marks[number] = self._setup.counters.mark()

    def _await(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Takes reports until what is waited for is there.

        Raises:
            ClientProcessError: a process died, or doesn't report any more.
        """
        deadline = time.monotonic() + max(timeout_seconds, 0.0) + _PATIENCE_SECONDS
        while not ready():
            left = deadline - time.monotonic()
            if left <= 0:
                raise ClientProcessError("DIED", f"a client process hasn't reported for {_PATIENCE_SECONDS:g} s")
            for process, report in self._setup.processes.reports(left):
                if isinstance(report, EndReport):
                    self._ends[process] = report
                else:
                    self._reports.setdefault(report.window, {})[process] = report

    def _window(self, number: int, wrong: int) -> Window:
        """What ended within it."""
        seconds = self._pace.window_seconds
        start = self._start + number * seconds
        notes = Notes.concatenate(self._recent)
        over = notes.end_times < start + seconds
        inside = notes.where(over)
        self._recent = [notes.where(~over)]  # reports come a little after the end of their window
        good = inside.seconds[inside.success]
        return Window(
            start - self._setup.epoch, seconds, len(good), len(good) / seconds, figures.percentile(good, 50),
            figures.percentile(good, 99), inside.errors(), wrong, number >= self._pace.warmup_windows,
        )  # fmt: skip

    def _add_up(self, first: int, last: int) -> None:
        """Moves notes of calls due in these windows to the figures, and forgets those due before."""
        notes = Notes.concatenate(self._notes)
        low, high = (self._start + number * self._pace.window_seconds for number in (first, last))
        self._figures.add(notes.where((notes.due >= low) & (notes.due < high)))
        self._notes = [notes.where(notes.due >= high)]

    def _outcome(self) -> Outcome | None:
        """The point, of all windows after the warm-up, so that no stall is left out; None without a window."""
        count = len(self._windows)
        if not count:
            return None
        first = min(self._pace.warmup_windows, count - 1)  # interrupted in the warm-up, the last of that counts
        self._add_up(first, count)
        unsent = self._add_unsent(first, count)
        due = self._figures.count + self._without_answer + unsent
        return Outcome(self._point(first, count, unsent), self._figures.within_bound, due)

    def _add_unsent(self, first: int, last: int) -> int:
        """Counts calls that were due and never sent, with the least that their latency could have been."""
        total, seconds = 0, self._pace.window_seconds
        for end in self._ends.values():
            for number, count in enumerate(end.unsent[:last]):
                if number >= first and count:
                    self._figures.add_unsent((last - number - 0.5) * seconds, count)
                    total += count
        return total

    @property
    def _without_answer(self) -> int:
        return sum(end.without_answer for end in self._ends.values())

    def _point(self, first: int, last: int, unsent: int) -> Point:
        windows = tuple(replace(window, measured=number >= first) for number, window in enumerate(self._windows[:last]))
        seconds = (last - first) * self._pace.window_seconds
        latency = self._figures.total.latency()
        calls = sum(window.calls for window in windows[first:])
        usages = [usage for window in self._usages[first:last] for usage in window]
        busy = bottleneck.busy_ratio(self._ticks[first], self._ticks[last])
        late = self._figures.late.latency() if self._load.mode != "closed" else None
        client = bottleneck.client(usages, seconds, calls, busy, late, latency)
        ends = list(self._ends.values())
        entries = len(self._setup.workload.entries)
        wrong = np.sum([end.wrong or (0,) * entries for end in ends], axis=0, dtype=int).tolist()
        return Point(
            self._setup.target[1], self._load, windows[first].start_seconds, seconds, self._steady(), calls,
            calls / seconds, latency, self._figures.errors(), self._first_error, sum(end.comparisons for end in ends),
            sum(wrong), next((end.first_wrong for end in ends if end.first_wrong), None), self._without_answer,
            windows, self._figures.parts(seconds, wrong),
            client if self._setup.remote else replace(client, bottleneck=None), self._server(first, last, calls),
            histogram=self._figures.total.base64(), unsent=unsent,
        )  # fmt: skip

    def _server(self, first: int, last: int, calls: int) -> Server | None:
        counters = self._setup.counters
        if counters is None or first not in self._marks or last not in self._marks:
            return None
        return counters.between(self._marks[first], self._marks[last], calls)
