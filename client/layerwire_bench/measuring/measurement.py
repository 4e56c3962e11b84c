"""One load on one target, measured: windows until they agree, then the point.

It knows the crew's reports and figures; neither targets' protocols nor how runs are shown.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from layerwire_bench.calling.process import Ended, Report
from layerwire_bench.calling.processes import Crew, CrewError
from layerwire_bench.calling.tally import Notes
from layerwire_bench.measuring import bottleneck, figures
from layerwire_bench.measuring.bottleneck import Busy, Usage
from layerwire_bench.measuring.figures import Gathered
from layerwire_bench.plan import Pace
from layerwire_bench.result import Load, Point, Server, Window
from layerwire_bench.workload import Workload

_LOST_WINDOWS = 3  # in a row without an answer, after which a target is given up
_LOST_CODES = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
_PATIENCE_SECONDS = 15.0  # beyond what a report should take


class EndedEarly(Exception):
    """The measurement ended before it was done. `point` is what was measured, None for nothing."""

    def __init__(self, message: str, point: Point | None) -> None:
        super().__init__(message)
        self.point = point


class Lost(EndedEarly):
    """The target stopped answering."""


class Interrupted(EndedEarly):
    """Ctrl-C."""


class Counts(Protocol):
    """What a server counts."""

    def mark(self) -> int:
        """Reads it now; the number of this reading."""

    def between(self, first: int, last: int, calls: int) -> Server | None:
        """What was counted between two readings, in which the client made so many calls."""


@dataclass(frozen=True)
class Measured:
    """A point, and how many of all calls that were due succeeded within the bound."""

    point: Point
    kept: int
    due: int


@dataclass(frozen=True)
class Setting:
    """What all measurements of a target have in common.

    Attributes:
        target: its index in the crew's job, and how the user spelled it.
        counts: the server's own counters; None where there are none.
        watch: is told of each window.
        epoch: time.monotonic() when the run began.
        timeout_seconds: of a call.
        remote: whether calls leave the client, so that it matters what the client itself uses.
    """

    crew: Crew
    workload: Workload
    pace: Pace
    target: tuple[int, str]
    counts: Counts | None
    watch: Callable[[Load, Window], None]
    epoch: float
    timeout_seconds: float
    remote: bool


class Measurement:
    """One load on one target; `bound_seconds` is the bound of `Measured.kept`."""

    def __init__(self, setting: Setting, load: Load, bound_seconds: float = math.inf) -> None:
        self._setting = setting
        self._load = load
        self._pace = setting.pace
        self._gathered = Gathered(setting.workload, bound_seconds)
        self._notes: list[Notes] = []  # of calls that may count for the point
        self._recent: list[Notes] = []  # of calls that ended after the last window
        self._windows: list[Window] = []
        self._usages: list[list[Usage]] = []
        self._busy: list[Busy | None] = []
        self._marks: dict[int, int] = {}  # window -> reading of the counters at its beginning
        self._reports: dict[int, dict[int, Report]] = {}
        self._ended: dict[int, Ended] = {}
        self._wrong = 0
        self._answered = 0  # calls that ended, in whatever way
        self._first_error: str | None = None
        self._start = 0.0

    def run(self) -> Measured:
        """The whole measurement.

        Raises:
            Lost: the target stopped answering.
            Interrupted: Ctrl-C.
            CrewError: a client process died.
        """
        crew = self._setting.crew
        self._start = crew.begin(self._setting.target[0], self._load, self._pace.window_seconds)
        interrupted = False
        try:
            self._boundary()
            while not self._enough() and not self._lost():
                self._next_window()
        except KeyboardInterrupt:
            interrupted = True
        crew.end()
        self._await(lambda: len(self._ended) == len(crew), self._setting.timeout_seconds + 1)
        for number in sorted(self._ended):
            notes = self._ended[number].notes
            self._notes.append(notes)
            self._answered += len(notes.due)
            self._first_error = self._first_error or self._ended[number].first_error
        measured = self._measured()
        if interrupted:
            raise Interrupted("interrupted", None if measured is None else measured.point)
        if measured is None or self._lost() or not self._answered:
            said = f": {self._first_error}" if self._first_error else ""
            raise Lost(f"no answer any more{said}", None if measured is None else measured.point)
        return measured

    def _enough(self) -> bool:
        done = len(self._windows) - self._pace.warmup_windows
        if self._pace.duration_windows is not None:
            return done >= self._pace.duration_windows
        return done >= self._pace.max_windows or self._steady()

    def _steady(self) -> bool:
        """Whether the last windows agree."""
        wanted = self._pace.steady_windows
        if len(self._windows) - self._pace.warmup_windows < wanted:
            return False
        last = self._windows[self._pace.warmup_windows :]
        if self._pace.duration_windows is None:
            last = last[-wanted:]
        medians = [window.p50_seconds for window in last]
        rates = [window.throughput for window in last]
        return all(
            None not in values and min(values) > 0 and max(values) <= min(values) * (1 + self._pace.tolerance)  # type: ignore[type-var,operator]
            for values in (medians, rates)
        )

    def _lost(self) -> bool:
        last = self._windows[-_LOST_WINDOWS:]
        errors = {code for window in last for code in window.errors}
        silent = len(last) == _LOST_WINDOWS and not any(window.calls for window in last)
        return silent and bool(errors) and errors <= _LOST_CODES

    def _next_window(self) -> None:
        """Waits for a window to end, and adds it up."""
        number, crew = len(self._windows), self._setting.crew
        end = self._start + (number + 1) * self._pace.window_seconds
        self._await(lambda: len(self._reports.get(number, ())) == len(crew), end - time.monotonic())
        reports = self._reports.pop(number)
        self._usages.append(
            [Usage(process, one.cpu_seconds, one.loop_cpu_seconds, one.lags) for process, one in reports.items()]
        )
        for report in reports.values():
            self._first_error = self._first_error or report.first_error
            self._answered += len(report.notes.due)
        fresh = [report.notes for report in reports.values()]
        self._notes += fresh
        self._recent += fresh
        wrong = sum(report.wrong for report in reports.values())
        window = self._window(number, wrong - self._wrong)
        self._wrong = wrong
        self._windows.append(window)
        self._boundary()
        self._setting.watch(self._load, window)
        if len(self._windows) > self._pace.warmup_windows:
            self._gather(self._pace.warmup_windows, len(self._windows))

    def _boundary(self) -> None:
        """Reads counters between windows; for a given duration at its beginning and its end only."""
        self._busy.append(bottleneck.busy())
        number, duration = len(self._windows), self._pace.duration_windows
        first = self._pace.warmup_windows
        if self._setting.counts is None or number < first:
            return
        if duration is None or number in (first, first + duration):
            self._marks[number] = self._setting.counts.mark()

    def _await(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Takes reports until what is waited for is there.

        Raises:
            CrewError: a process died, or doesn't report any more.
        """
        deadline = time.monotonic() + max(timeout_seconds, 0.0) + _PATIENCE_SECONDS
        while not ready():
            left = deadline - time.monotonic()
            if left <= 0:
                raise CrewError("DIED", f"a client process hasn't reported for {_PATIENCE_SECONDS:g} s")
            for process, report in self._setting.crew.heard(left):
                if isinstance(report, Ended):
                    self._ended[process] = report
                else:
                    self._reports.setdefault(report.window, {})[process] = report

    def _window(self, number: int, wrong: int) -> Window:
        """What ended within it."""
        seconds = self._pace.window_seconds
        start = self._start + number * seconds
        notes = Notes.joined(self._recent)
        over = notes.ended < start + seconds
        inside = notes.where(over)
        self._recent = [notes.where(~over)]  # reports come a little after the end of their window
        good = inside.seconds[inside.succeeded]
        return Window(
            start - self._setting.epoch, seconds, len(good), len(good) / seconds, figures.percentile(good, 50),
            figures.percentile(good, 99), inside.errors(), wrong, number >= self._pace.warmup_windows,
        )  # fmt: skip

    def _gather(self, first: int, last: int) -> None:
        """Moves notes of calls due in these windows to the figures, and forgets those due before."""
        notes = Notes.joined(self._notes)
        low, high = (self._start + number * self._pace.window_seconds for number in (first, last))
        self._gathered.add(notes.where((notes.due >= low) & (notes.due < high)))
        self._notes = [notes.where(notes.due >= high)]

    def _measured(self) -> Measured | None:
        """The point, of all windows after the warm-up, so that no stall is left out; None without a window."""
        count = len(self._windows)
        if not count:
            return None
        first = min(
            self._pace.warmup_windows, count - 1
        )  # interrupted in the warm-up, the last of that is what there is
        self._gather(first, count)
        unsent = self._add_unsent(first, count)
        due = self._gathered.ended + self._unfinished + unsent
        return Measured(self._point(first, count, unsent), self._gathered.kept, due)

    def _add_unsent(self, first: int, last: int) -> int:
        """Counts calls that were due and never sent, with the least that their latency could have been."""
        total, seconds = 0, self._pace.window_seconds
        for ended in self._ended.values():
            for number, count in enumerate(ended.unsent[:last]):
                if number >= first and count:
                    self._gathered.add_unsent((last - number - 0.5) * seconds, count)
                    total += count
        return total

    @property
    def _unfinished(self) -> int:
        return sum(ended.unfinished for ended in self._ended.values())

    def _point(self, first: int, last: int, unsent: int) -> Point:
        windows = tuple(replace(window, measured=number >= first) for number, window in enumerate(self._windows[:last]))
        seconds = (last - first) * self._pace.window_seconds
        gathered, total = self._gathered, self._gathered.total.latency()
        calls = sum(window.calls for window in windows[first:])
        usages = [usage for window in self._usages[first:last] for usage in window]
        busy = bottleneck.busy_ratio(self._busy[first], self._busy[last])
        late = gathered.late.latency() if self._load.mode != "closed" else None
        used = bottleneck.client(usages, seconds, calls, busy, late, total)
        checked = list(self._ended.values())
        entries = len(self._setting.workload.entries)
        wrong = np.sum([ended.wrong or (0,) * entries for ended in checked], axis=0, dtype=int).tolist()
        return Point(
            self._setting.target[1], self._load, windows[first].start_seconds, seconds, self._steady(), calls,
            calls / seconds, total, gathered.errors(), self._first_error, sum(ended.verified for ended in checked),
            sum(wrong), next((ended.first_wrong for ended in checked if ended.first_wrong), None), self._unfinished,
            windows, gathered.parts(seconds, wrong),
            used if self._setting.remote else replace(used, bottleneck=None), self._server(first, last, calls),
            histogram=gathered.total.encoded(), unsent=unsent,
        )  # fmt: skip

    def _server(self, first: int, last: int, calls: int) -> Server | None:
        counts = self._setting.counts
        if counts is None or first not in self._marks or last not in self._marks:
            return None
        return counts.between(self._marks[first], self._marks[last], calls)
