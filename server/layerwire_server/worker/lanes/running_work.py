"""The batches that run, and how much of the device's time each takes. Time is an argument; standard library only.

It knows neither calls nor lanes. Where several batches run at once, the time that passes is shared out among them: so
what they take adds up to what the device does, and whoever waits for them waits for the sum.
"""

from __future__ import annotations

import math
from collections.abc import Hashable


class _Batch:
    """One that runs."""

    __slots__ = ("expected_seconds", "seconds")

    def __init__(self, expected_seconds: float, seconds: float) -> None:
        self.expected_seconds = expected_seconds
        self.seconds = seconds


class RunningWork:
    """All batches that run."""

    def __init__(self) -> None:
        self._batches: dict[Hashable, _Batch] = {}
        self._time = 0.0  # up to which all time is shared out
        self._end_time = -math.inf  # when all that runs should have ended

    def __len__(self) -> int:
        """How many there are."""
        return len(self._batches)

    def wait(self, now: float) -> None:
        """A call comes to wait where none did: if nothing runs, the time until something does is the next batch's."""
        if not self._batches:
            self._time = now

    def begin(self, key: Hashable, expected_seconds: float, now: float, *, counts_wait: bool) -> None:
        """A batch begins that should take so long by itself; `counts_wait`: with the time that nothing ran."""
        seconds = 0.0
        if self._batches:
            self._share(now)
        else:
            seconds = now - self._time if counts_wait else 0.0
            self._time = now
        self._batches[key] = _Batch(expected_seconds, seconds)
        self._end_time = max(self._end_time, now) + expected_seconds

    def end(self, key: Hashable, now: float) -> float:
        """It has ended; the seconds that it took, less what others had of them."""
        self._share(now)
        seconds = self._batches.pop(key).seconds
        left_seconds = sum(batch.expected_seconds for batch in self._batches.values())
        self._end_time = min(self._end_time, now + left_seconds) if self._batches else -math.inf
        return seconds

    def seconds_left(self, now: float) -> float:
        """Until all of them have ended."""
        return max(self._end_time - now, 0.0)

    def _share(self, now: float) -> None:
        seconds = (now - self._time) / len(self._batches)
        for batch in self._batches.values():
            batch.seconds += seconds
        self._time = now
