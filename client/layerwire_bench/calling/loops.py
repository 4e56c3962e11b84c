"""Closed and open loops: who calls when.

They know targets, clocks and notes; neither processes nor percentiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from layerwire_bench.calling.checker import Checker
from layerwire_bench.calling.tally import Tally
from layerwire_bench.calling.timer import timer
from layerwire_bench.targets.target import Target
from layerwire_bench.workload import Workload

_ORDER = 4096  # calls after which their order repeats
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 1.0
_FULL_PAUSE_SECONDS = 0.001
_AT_ONCE = 64  # calls sent without a look at the answers that came meanwhile
MAX_IN_FLIGHT = 16_384


class Source:
    """Which call is next: samples by the shares of their entries, in an order that the seed decides."""

    def __init__(self, workload: Workload, prepared: Sequence[Any], seed: int) -> None:
        entries = np.array([sample.entry for sample in workload.samples])
        shares = np.array([entry.share for entry in workload.entries])
        weights = (shares / np.bincount(entries, minlength=len(shares)))[entries]
        order = np.random.default_rng(seed).choice(len(entries), _ORDER, p=weights / weights.sum())
        self.next = cycle([(int(index), prepared[index]) for index in order]).__next__


class Loop(ABC):
    """Calls of one load on one target.

    Attributes:
        in_flight: calls without an answer.
        stopped: whether no further call is sent.
        fire, next_sample: the target's and the source's.
    """

    def __init__(self, target: Target, source: Source, tally: Tally, checker: Checker | None) -> None:
        self.fire = target.fire
        self.next_sample = source.next
        self.in_flight = 0
        self.stopped = False
        self.loop = asyncio.get_running_loop()
        self._tally = tally
        self._look = None if checker is None else checker.look
        self._idle = asyncio.Event()

    @abstractmethod
    def start(self, when: float) -> None:
        """Begins at this time of time.monotonic()."""

    def stop(self) -> None:
        """Sends no further call."""
        self.stopped = True
        if not self.in_flight:
            self._idle.set()

    async def idle(self, timeout_seconds: float) -> int:
        """Waits for the answers that are out, and tells how many never came."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        return self.in_flight

    def unsent(self, window_seconds: float) -> tuple[int, ...]:
        """By window, calls that were due before the loop was stopped, and not sent."""
        return ()

    def answered(self, due: float, sample: int, answer: Any, code: str, message: str) -> None:
        """A call ended now."""
        self._tally.note(due, sample, code, message)
        self.in_flight -= 1
        if self.stopped and not self.in_flight:
            self._idle.set()
        if code == "OK" and self._look is not None:
            self._look(sample, answer)

    def late(self, seconds: float) -> None:
        """The call that is answered next was sent so late."""
        self._tally.note_late(seconds)


class ClosedLoop(Loop):
    """Callers that each wait for their answer before they call again. After an error a caller pauses, ever longer."""

    def __init__(self, target: Target, source: Source, tally: Tally, checker: Checker | None, callers: int) -> None:
        super().__init__(target, source, tally, checker)
        self._callers = callers

    def start(self, when: float) -> None:
        """All callers begin at this time."""
        for _ in range(self._callers):
            self.loop.call_later(max(when - time.monotonic(), 0.0), _Caller(self).call)


class _Caller:
    """One of a closed loop."""

    __slots__ = ("_due", "_owner", "_pause", "_sample")

    def __init__(self, owner: ClosedLoop) -> None:
        self._owner = owner
        self._pause = 0.0
        self._due = 0.0
        self._sample = 0

    def call(self) -> None:
        owner = self._owner
        if owner.stopped:
            return
        self._sample, prepared = owner.next_sample()
        owner.in_flight += 1
        self._due = time.monotonic()
        owner.fire(prepared, self.done)

    def done(self, answer: Any, code: str, message: str) -> None:
        self._owner.answered(self._due, self._sample, answer, code, message)
        if code == "OK":
            self._pause = 0.0
            self.call()
        else:
            self._pause = min(self._pause * 2 or _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            self._owner.loop.call_later(self._pause, self.call)


class OpenLoop(Loop):
    """Calls at the times of a schedule, whatever became of those before.

    Latency counts from the time that a call was due, so that a client or server that stalls can't hide the calls that
    had to wait for it (coordinated omission: Gil Tene, "How NOT to Measure Latency").
    """

    def __init__(
        self, target: Target, source: Source, tally: Tally, checker: Checker | None, schedule: Iterator[float]
    ) -> None:
        super().__init__(target, source, tally, checker)
        self._schedule = schedule
        self._timer = timer(self._send)
        self._start = 0.0
        self._due = 0.0
        self._end = 0.0

    def start(self, when: float) -> None:
        """The schedule begins at this time."""
        self._start = when
        self._due = when + next(self._schedule)
        self._timer.set(self._due)

    def stop(self) -> None:
        """Sends no further call."""
        self._end = time.monotonic()
        self._timer.close()
        super().stop()

    def unsent(self, window_seconds: float) -> tuple[int, ...]:
        """By window, calls that were due before the loop was stopped, and not sent."""
        counts: dict[int, int] = {}
        while self._due <= self._end:
            window = int((self._due - self._start) / window_seconds)
            counts[window] = counts.get(window, 0) + 1
            self._due = self._start + next(self._schedule)
        return tuple(counts.get(window, 0) for window in range(max(counts, default=-1) + 1))

    def _send(self) -> None:
        """Sends what is due; after some, answers get their turn, and calls wait that find too many out."""
        if self.stopped:
            return
        now = time.monotonic()
        for _ in range(_AT_ONCE):
            if self._due > now or self.in_flight >= MAX_IN_FLIGHT:
                break
            sample, prepared = self.next_sample()
            self.in_flight += 1
            self.fire(prepared, _Shot(self, self._due, sample, now - self._due).done)
            self._due = self._start + next(self._schedule)
        self._timer.set(self._due if self.in_flight < MAX_IN_FLIGHT else now + _FULL_PAUSE_SECONDS)


class _Shot:
    """One call of an open loop."""

    __slots__ = ("_due", "_late", "_owner", "_sample")

    def __init__(self, owner: OpenLoop, due: float, sample: int, late: float) -> None:
        self._owner = owner
        self._due = due
        self._sample = sample
        self._late = late

    def done(self, answer: Any, code: str, message: str) -> None:
        self._owner.late(self._late)
        self._owner.answered(self._due, self._sample, answer, code, message)
