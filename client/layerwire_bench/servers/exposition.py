"""Pages of Prometheus' text format as numbers, and the histograms among them.

It knows the format and Prometheus' own rules; no metric in particular.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

Labels: TypeAlias = Mapping[str, str]
# Name of a sample and its labels, sorted.
Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class Histogram:
    """Values counted by bucket: `below[bound]` of them are at most `bound`, all of them at most infinity."""

    count: float = 0.0
    total: float = 0.0
    below: dict[float, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Their mean; NaN without values."""
        return self.total / self.count if self.count else math.nan

    def add(self, other: Histogram, weight: float = 1.0) -> None:
        """Takes in another of the same bounds, each of its values as if there were `weight` of it."""
        self.count += other.count * weight
        self.total += other.total * weight
        for bound, count in other.below.items():
            self.below[bound] = self.below.get(bound, 0.0) + count * weight

    def quantile(self, share: float) -> float:
        """The value that this share is below, by Prometheus' histogram_quantile: even within a bucket; NaN without any.

        What is above the last finite bound counts as that bound.
        """
        bounds = sorted(self.below)
        rank = share * self.below[bounds[-1]] if bounds else 0.0
        if len(bounds) < 2 or not rank:
            return math.nan
        index = next(index for index, bound in enumerate(bounds) if self.below[bound] >= rank)
        if bounds[index] == math.inf:
            return bounds[index - 1]
        start, before = (bounds[index - 1], self.below[bounds[index - 1]]) if index else (0.0, 0.0)
        return start + (bounds[index] - start) * (rank - before) / (self.below[bounds[index]] - before)


class Samples:
    """Samples of a page, or what they grew by.

    Args:
        values: by name and labels.
    """

    def __init__(self, values: Mapping[Key, float]) -> None:
        self._values = values
        self._names: dict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for (name, labels), value in values.items():
            self._names[name].append((dict(labels), value))

    @staticmethod
    def parse(page: str) -> Samples:
        """The samples of a page; raises ValueError if it is none."""
        samples = (sample for family in text_string_to_metric_families(page) for sample in family.samples)
        return Samples({(one.name, tuple(sorted(one.labels.items()))): one.value for one in samples})

    def since(self, before: Samples, counters: Callable[[str], bool]) -> tuple[Samples, bool]:
        """By how much they grew, and whether the counters among them began anew meanwhile.

        If any of them did, so did its server, and everything counts from zero.
        """
        old = before._values
        if any(value < old.get(key, 0.0) for key, value in self._values.items() if counters(key[0])):
            return self, True
        return Samples({key: value - old.get(key, 0.0) for key, value in self._values.items()}), False

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums of a name's samples by the values of a label."""
        sums: dict[str, float] = defaultdict(float)
        for labels, value in self._names.get(name, ()):
            sums[labels.get(label, "")] += value
        return dict(sums)

    def sum(self, name: str, where: Callable[[Labels], bool] | None = None) -> float:
        """The sum of a name's samples that have such labels, all if none are asked for."""
        return sum(value for labels, value in self._names.get(name, ()) if where is None or where(labels))

    def histogram(self, name: str, where: Callable[[Labels], bool]) -> Histogram:
        """The histogram of a name's samples that have such labels, added up."""
        below: dict[float, float] = defaultdict(float)
        for labels, value in self._names.get(f"{name}_bucket", ()):
            if where(labels):
                below[float(labels["le"])] += value
        return Histogram(self.sum(f"{name}_count", where), self.sum(f"{name}_sum", where), dict(below))
