"""Readings of a server's counters, and what it counted between two of them.

It knows when they are read and how many are kept; neither where they come from nor what they mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from layerwire_bench.result import Server

Reading = TypeVar("Reading")

MAX_READINGS = 64  # a measurement looks back over fewer
# How far the server's calls may be above the client's before it is worth a word: those on their way at the beginning
# and the end of the stretch are counted by one side only.
MORE, SPARE_CALLS = 1.25, 100
STARTED_ANEW = "the server was started anew meanwhile, and what it had counted before is missing"


class Counters(ABC, Generic[Reading]):
    """A server's own counters."""

    def __init__(self) -> None:
        self._readings: dict[int, Reading] = {}
        self._marks = 0

    def mark(self) -> int:
        """Reads them now; the number of this reading. One that fails is as if there were none."""
        self._marks += 1
        reading = self._read()
        if reading is not None:
            self._readings[self._marks] = reading
            if len(self._readings) > MAX_READINGS:
                del self._readings[min(self._readings)]
        return self._marks

    def between(self, first: int, last: int, calls: int) -> Server | None:
        """What was counted between two readings, in which the client had so many answers; None if one failed."""
        if first not in self._readings or last not in self._readings:
            return None
        return self._growth(self._readings[first], self._readings[last], calls)

    @abstractmethod
    def _read(self) -> Reading | None:
        """A reading; None if it can't be had now."""

    @abstractmethod
    def _growth(self, before: Reading, after: Reading, calls: int) -> Server | None:
        """What was counted between; None if a reading makes no sense."""
