"""How long a lane's batches take and its calls wait, by those of late. Time is an argument; standard library only.

It knows neither calls nor lanes, nor what is done with its predictions.
"""

from __future__ import annotations

import math

_MEMORY = 0.9  # weight of what was known when one more batch ran
# A batch that took longer than so many times the prediction counts as that: the machine had a hiccup. One that took as
# much less has no such excuse: what was known is wrong.
_OUTLIER = 4.0
_LEAST_WEIGHT = 2.5  # of three batches: fewer, of which the first loads what is loaded at first use, predict nothing
# What takes less than this, as was predicted, makes no call late: it is enough to look now and then.
_SHORT_SECONDS, _LOOK_SECONDS = 0.0005, 0.01
_FRESH_SECONDS = 0.5  # a prediction fades from this age on: what is refused for it must be tried again
_HALF_LIFE_SECONDS = 0.5
# Until batches of several sizes ran, one of 16 times the rows is thought to take 4 times as long; in units of what the
# sizes that ran say.
_GUESS_COMPANY = 64.0
_MOST_WAIT_RATIO = 20.0
_GUESS_WEIGHT, _GUESS_ROWS, _GUESS_SECONDS = 1e-4, 16.0, 4.0
# Of the guess about the mean, less the mean's own square and product.
_GUESS_VARIANCE = _GUESS_WEIGHT * (_GUESS_ROWS - 1) ** 2 - 1
_GUESS_COVARIANCE = _GUESS_WEIGHT * (_GUESS_ROWS - 1) * (_GUESS_SECONDS - 1) - 1


class Pace:
    """A line through the sizes and times of a lane's batches: seconds of any batch, and seconds of each row.

    Attributes:
        batch_seconds: what a batch takes, however small; 0 before the first ran, as the next.
        row_seconds: what each of its rows adds.
    """

    __slots__ = (
        "_loaded_rows", "_products", "_rows", "_seconds", "_squares", "_time", "_wait_ratio", "_weight",
        "batch_seconds", "row_seconds",
    )  # fmt: skip

    def __init__(self) -> None:
        self.batch_seconds = 0.0
        self.row_seconds = 0.0
        self._weight = self._rows = self._seconds = self._squares = self._products = 0.0  # sums that fade
        self._loaded_rows = 0.0  # of a batch while much waits
        self._wait_ratio = 1.0
        self._time = 0.0

    def observe(self, rows: int, seconds: float, now: float, *, is_loaded: bool = False) -> None:
        """A batch of so many rows took so long, and ended now; `is_loaded` if much waits behind it."""
        memory = _MEMORY
        expected = self.batch_seconds + self.row_seconds * rows
        is_short = seconds < _SHORT_SECONDS > expected and self._weight >= _LEAST_WEIGHT
        if is_short and now - self._time < _LOOK_SECONDS and not is_loaded:
            return
        if _OUTLIER * seconds < expected:
            memory = 0.0
        elif self._weight and seconds > _OUTLIER * expected:
            seconds = _OUTLIER * expected
        if is_loaded:
            self._loaded_rows += (rows - self._loaded_rows) * (1.0 - _MEMORY if self._loaded_rows else 1.0)
        self._time = now
        self._weight = weight = self._weight * memory + 1.0
        self._rows = self._rows * memory + rows
        self._seconds = self._seconds * memory + seconds
        self._squares = self._squares * memory + rows * rows
        self._products = self._products * memory + rows * seconds
        mean_rows, mean_seconds = self._rows / weight, self._seconds / weight
        variance = self._squares / weight + _GUESS_VARIANCE * mean_rows * mean_rows
        covariance = self._products / weight + _GUESS_COVARIANCE * mean_rows * mean_seconds
        slope = covariance / variance if variance > 0.0 < covariance else 0.0
        if slope * mean_rows > mean_seconds:
            slope = mean_seconds / mean_rows
        self.row_seconds = slope
        self.batch_seconds = max(mean_seconds - slope * mean_rows, 0.0)

    def observe_wait(self, expected_seconds: float, seconds: float) -> None:
        """A call waited so long, while so much work was before it."""
        ratio = min(max(seconds / expected_seconds, 1.0), _MOST_WAIT_RATIO)
        self._wait_ratio += (ratio - self._wait_ratio) * (1.0 - _MEMORY)

    def wait_ratio(self, now: float) -> float:
        """How much longer than the work before it a call waits: others may come and pass it."""
        return 1.0 + (self._wait_ratio - 1.0) * self._freshness(now)

    def expected_seconds(self, rows: int, now: float) -> float:
        """What a batch of so many rows will take; 0 if that can't be known, or is known no more."""
        if self._weight < _LEAST_WEIGHT:
            return 0.0
        seconds = self.batch_seconds + self.row_seconds * rows
        return seconds if now - self._time <= _FRESH_SECONDS else seconds * self._freshness(now)

    def rows_within(self, seconds: float, now: float) -> float:
        """How many rows a batch may have to end within so many seconds; infinite if nothing is known."""
        freshness = self._freshness(now)
        slope = self.row_seconds * freshness
        if slope <= 0.0 or self._weight < _LEAST_WEIGHT:
            return math.inf
        return (seconds - self.batch_seconds * freshness) / slope

    def seconds_in_company(self, rows: int, max_rows: int, now: float) -> float:
        """What so many rows add to the work that waits, if they travel in batches as large as are usual under load."""
        company = self._loaded_rows or min(
            max(_GUESS_ROWS * self._rows / (self._weight or 1.0), _GUESS_COMPANY), max_rows
        )
        return (self.row_seconds + self.batch_seconds / max(company, 1.0)) * rows * self._freshness(now)

    def _freshness(self, now: float) -> float:
        age_seconds = now - self._time - _FRESH_SECONDS
        return 1.0 if age_seconds <= 0 else 0.5 ** (age_seconds / _HALF_LIFE_SECONDS)
