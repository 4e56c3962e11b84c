"""Which rate to try next, on the way to the highest one that keeps a bound.

Pure: it knows rates that were kept and missed; nothing of how they were measured.
"""

from __future__ import annotations

import math

PRECISION = 0.05  # between the highest rate kept and the lowest missed, at which the search is over
MAX_TRIALS = 16
_UP = 1.5
_DOWN = 0.5
_LEAST_RATE = 0.1


class Bisection:
    """First outwards from a start until the bound lies between two rates, then inwards by geometric means.

    Args:
        start: the first rate.
        least, most: rates that aren't left; None where there is no limit.

    Attributes:
        highest_kept, lowest_missed: rates; None before there is one.
    """

    def __init__(self, start: float, least: float | None = None, most: float | None = None) -> None:
        self._least = _LEAST_RATE if least is None else least
        self._most = math.inf if most is None else most
        self._start = min(max(start, self._least), self._most)
        self._trials = 0
        self.highest_kept: float | None = None
        self.lowest_missed: float | None = None

    def next_rate(self) -> float | None:
        """The rate to try; None when the search is over."""
        kept, missed = self.highest_kept, self.lowest_missed
        if self._trials >= MAX_TRIALS:
            return None
        if missed is None:
            if kept is None:
                return self._start
            return min(kept * _UP, self._most) if kept < self._most else None
        if kept is None:
            return max(missed * _DOWN, self._least) if missed > self._least else None
        return math.sqrt(kept * missed) if missed > kept * (1 + PRECISION) else None

    def record(self, rate: float, *, success: bool) -> None:
        """How the rate went. What contradicts an earlier trial, as noise may, counts as missed."""
        self._trials += 1
        if success and (self.lowest_missed is None or rate < self.lowest_missed):
            self.highest_kept = max(self.highest_kept or 0.0, rate)
        elif not success:
            self.lowest_missed = min(self.lowest_missed or math.inf, rate)
            if self.highest_kept is not None and self.highest_kept >= self.lowest_missed:
                self.highest_kept = None
