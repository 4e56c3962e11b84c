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
    """

    def __init__(self, start: float, least: float | None = None, most: float | None = None) -> None:
        self._least = _LEAST_RATE if least is None else least
        self._most = math.inf if most is None else most
        self._start = min(max(start, self._least), self._most)
        self._trials = 0
        self.kept: float | None = None
        self.missed: float | None = None

    def next_rate(self) -> float | None:
        """The rate to try; None when the search is over."""
        if self._trials >= MAX_TRIALS:
            return None
        if self.kept is None and self.missed is None:
            return self._start
        if self.missed is None:
            assert self.kept is not None
            return min(self.kept * _UP, self._most) if self.kept < self._most else None
        if self.kept is None:
            return max(self.missed * _DOWN, self._least) if self.missed > self._least else None
        return math.sqrt(self.kept * self.missed) if self.missed > self.kept * (1 + PRECISION) else None

    def tell(self, rate: float, *, kept: bool) -> None:
        """How the rate went. What contradicts an earlier trial, as noise may, counts as missed."""
        self._trials += 1
        if kept and (self.missed is None or rate < self.missed):
            self.kept = max(self.kept or 0.0, rate)
        elif not kept:
            self.missed = min(self.missed or math.inf, rate)
            if self.kept is not None and self.kept >= self.missed:
                self.kept = None
