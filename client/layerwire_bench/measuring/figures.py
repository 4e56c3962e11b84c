"""From notes to figures: histograms, percentiles, the parts of a mix.

Pure: it knows notes and results; neither processes nor clocks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from layerwire_bench.calling.tally import Notes
from layerwire_bench.result import Latency, Part
from layerwire_bench.workload import Workload

_NANOSECONDS = 1e9
_LONGEST_NANOSECONDS = 3_600_000_000_000  # an hour
_DIGITS = 3  # of a histogram's values: right to a thousandth


class Latencies:
    """Latencies of any number of calls in bounded memory: an HDR histogram, and exact moments."""

    def __init__(self) -> None:
        self.histogram = HdrHistogram(1, _LONGEST_NANOSECONDS, _DIGITS)
        self.count = 0
        self._sum = 0.0
        self._squares = 0.0
        self._least = math.inf
        self._most = 0.0

    def add(self, seconds: npt.NDArray[np.float64]) -> None:
        if not len(seconds):
            return
        nanoseconds = np.clip(np.rint(seconds * _NANOSECONDS), 1, _LONGEST_NANOSECONDS).astype(np.int64)
        # Rounded further than the histogram does, there are few distinct ones, and recording costs by the distinct one.
        fine = 2.0 ** np.maximum(np.floor(np.log2(nanoseconds)) - 13, 0)
        values, counts = np.unique((np.rint(nanoseconds / fine) * fine).astype(np.int64), return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.histogram.record_value(min(value, _LONGEST_NANOSECONDS), count)
        self.count += len(seconds)
        self._sum += float(seconds.sum())
        self._squares += float(np.square(seconds).sum())
        self._least = min(self._least, float(seconds.min()))
        self._most = max(self._most, float(seconds.max()))

    def percentile(self, percent: float) -> float:
        """In seconds, of those that were added."""
        return float(self.histogram.get_value_at_percentile(percent)) / _NANOSECONDS

    def latency(self) -> Latency | None:
        """None without any."""
        if not self.count:
            return None
        mean = self._sum / self.count
        spread = math.sqrt(max(self._squares / self.count - mean * mean, 0.0))
        most = self._most
        p50, p90, p95, p99, p999 = (min(self.percentile(percent), most) for percent in (50, 90, 95, 99, 99.9))
        return Latency(mean, spread, self._least, p50, p90, p95, p99, p999, most)

    def base64(self) -> str | None:
        """The histogram in base64; None without any."""
        return self.histogram.encode().decode() if self.count else None


class PointFigures:
    """All calls that count for a point.

    Attributes:
        total: latencies of those that succeeded.
        within_bound: those that succeeded within `bound_seconds`.
        late: how late open loops sent them.
    """

    def __init__(self, workload: Workload, bound_seconds: float = math.inf) -> None:
        self._entries = np.array([sample.entry for sample in workload.samples])
        self._workload = workload
        self._bound_seconds = bound_seconds
        self.total = Latencies()
        self.late = Latencies()
        self._parts = [Latencies() for _ in workload.entries]
        self._errors: list[Counter[str]] = [Counter() for _ in workload.entries]
        self.within_bound = 0
        self._unsent = 0

    def add(self, notes: Notes) -> None:
        good = notes.success
        seconds = notes.seconds[good]
        self.total.add(seconds)
        self.late.add(notes.late)
        self.within_bound += int((seconds <= self._bound_seconds).sum())
        entries = self._entries[notes.samples]
        for entry, part in enumerate(self._parts):
            mine = entries == entry
            part.add(notes.seconds[mine & good])
            self._errors[entry].update(notes.where(mine & ~good).errors())

    def add_unsent(self, seconds: float, count: int) -> None:
        """Calls that were due so long before the end, and never sent. Left out, an overload would look good."""
        self.total.add(np.full(count, seconds))
        self._unsent += count

    @property
    def count(self) -> int:
        """Calls, however they ended."""
        return self.total.count - self._unsent + sum(self.errors().values())

    def errors(self) -> dict[str, int]:
        """By status name, the most frequent first."""
        return dict(sum(self._errors, Counter[str]()).most_common())

    def parts(self, seconds: float, wrong: Sequence[int]) -> tuple[Part, ...]:
        """By entry, measured for so long, with so many wrong answers each."""
        return tuple(
            Part(entry.name, part.count, part.count / seconds, dict(errors), count, part.latency())
            for entry, part, errors, count in zip(self._workload.entries, self._parts, self._errors, wrong, strict=True)
        )


def percentile(seconds: npt.NDArray[np.float64], percent: float) -> float | None:
    """Of a window's calls; None without any."""
    return float(np.percentile(seconds, percent)) if len(seconds) else None
