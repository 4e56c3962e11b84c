"""Closed and open loops: who calls when.

They know targets, clocks and notes; neither processes nor percentiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count, cycle
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
_BURST = 64  # calls sent without a look at the answers that came meanwhile
_BLOCK = 1024  # of random numbers
MAX_IN_FLIGHT = 16_384


def constant_arrivals(rate: float, process: int, processes: int) -> Iterator[float]:
    """When calls are due, in seconds from the start: one every 1/rate seconds, of which the processes take turns."""
    for turn in count(process, processes):
        yield turn / rate


def poisson_arrivals(rate: float, process: int, processes: int, seed: int) -> Iterator[float]:
    """Independent of each other, as calls of many clients are; processes of a share of the rate add up to the rate."""
    generator = np.random.default_rng((seed, process))
    due = 0.0
    while True:
        for gap in generator.exponential(processes / rate, _BLOCK).tolist():
            due += gap
            yield due


class SampleOrder:
    """Which call is next: samples by the shares of their entries, in an order that the seed decides."""

    def __init__(self, workload: Workload, calls: Sequence[Any], seed: int) -> None:
        entries = np.array([sample.entry for sample in workload.samples])
        shares = np.array([entry.share for entry in workload.entries])
        weights = (shares / np.bincount(entries, minlength=len(shares)))[entries]
        order = np.random.default_rng(seed).choice(len(entries), _ORDER, p=weights / weights.sum())
        self.next = cycle([(int(index), calls[index]) for index in order]).__next__


class Loop(ABC):
    """Calls of one load on one target.

    Attributes:
        in_flight: calls without an answer.
        is_stopped: whether no further call is sent.
        fire, next_sample: the target's and the order's.
        tally: notes of the calls.
    """

    def __init__(self, target: Target, order: SampleOrder, tally: Tally, checker: Checker | None) -> None:
        self.fire = target.fire
        self.next_sample = order.next
        self.in_flight = 0
        self.is_stopped = False
        self.loop = asyncio.get_running_loop()
        self.tally = tally
        self._look = None if checker is None else checker.look
        self._idle = asyncio.Event()

    @abstractmethod
    def start(self, when: float) -> None:
        """Begins at this time of time.monotonic()."""

    def stop(self) -> None:
        """Sends no further call."""
        self.is_stopped = True
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

    def record(self, due: float, sample: int, answer: Any, code: str, message: str) -> None:
        """A call ended now."""
        self.tally.note(due, sample, code, message)
        self.in_flight -= 1
        if self.is_stopped and not self.in_flight:
            self._idle.set()
        if code == "OK" and self._look is not None:
            self._look(sample, answer)


class ClosedLoop(Loop):
    """Callers that each wait for their answer before they call again. After an error a caller pauses, ever longer."""

    def __init__(self, target: Target, order: SampleOrder, tally: Tally, checker: Checker | None, callers: int) -> None:
        super().__init__(target, order, tally, checker)
        self._callers = callers

    def start(self, when: float) -> None:
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
        if owner.is_stopped:
            return
        self._sample, call = owner.next_sample()
        owner.in_flight += 1
        self._due = time.monotonic()
        owner.fire(call, self.callback)

    def callback(self, answer: Any, code: str, message: str) -> None:
        self._owner.record(self._due, self._sample, answer, code, message)
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
        self, target: Target, order: SampleOrder, tally: Tally, checker: Checker | None, schedule: Iterator[float]
    ) -> None:
        super().__init__(target, order, tally, checker)
        self._schedule = schedule
        self._timer = timer(self._send)
        self._start = 0.0
        self._due = 0.0
        self._end = 0.0

    def start(self, when: float) -> None:
        self._start = when
        self._due = when + next(self._schedule)
        self._timer.set(self._due)

    def stop(self) -> None:
        self._end = time.monotonic()
        self._timer.close()
        super().stop()

    def unsent(self, window_seconds: float) -> tuple[int, ...]:
        counts: dict[int, int] = {}
        while self._due <= self._end:
            window = int((self._due - self._start) / window_seconds)
            counts[window] = counts.get(window, 0) + 1
            self._due = self._start + next(self._schedule)
        return tuple(counts.get(window, 0) for window in range(max(counts, default=-1) + 1))

    def _send(self) -> None:
        """Sends what is due; after some, answers get their turn, and calls wait that find too many out."""
        if self.is_stopped:
            return
        now = time.monotonic()
        for _ in range(_BURST):
            if self._due > now or self.in_flight >= MAX_IN_FLIGHT:
                break
            sample, call = self.next_sample()
            self.in_flight += 1
            self.fire(call, _Shot(self, self._due, sample, now - self._due).callback)
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

    def callback(self, answer: Any, code: str, message: str) -> None:
        self._owner.tally.note_late(self._late)
        self._owner.record(self._due, self._sample, answer, code, message)
