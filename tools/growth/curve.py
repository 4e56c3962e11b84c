"""A curve of measurements, and where it has a cliff: where it worsens by more than what grew explains.

Pure: it knows numbers and words; neither servers nor pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

SLACK = 1.5  # by which noise of a shared machine may make a point worse than what grew explains


class Point(NamedTuple):
    """What was measured at a size: answers or bytes a second, and the median latency."""

    size: float
    throughput: float
    p50_seconds: float


@dataclass(frozen=True)
class Growth:
    """Something that grows, and what it may cost.

    Attributes:
        name: of its picture, a word.
        title: what is called, and how.
        axis: what grows, with its unit.
        unit: of the throughput.
        keeps: the share of the throughput that may be left when the size is `ratio` times as large: 1 where growth
            explains no loss.
    """

    name: str
    title: str
    axis: str
    unit: str
    keeps: Callable[[float], float]
    latency: Callable[[float], float]
    sizes: tuple[float, ...]


def cliffs(growth: Growth, points: Sequence[Point]) -> list[str]:
    """Each cliff as a sentence: a step at which throughput or latency worsened by more than the step explains."""
    sentences = []
    for before, after in pairwise(points):
        ratio = after.size / before.size
        least = before.throughput * growth.keeps(ratio) / SLACK
        most = before.p50_seconds * growth.latency(ratio) * SLACK
        step = f"from {before.size:,.0f} to {after.size:,.0f} {growth.axis}"
        if after.throughput < least:
            change = f"{before.throughput:,.4g} to {after.throughput:,.4g} {growth.unit}"
            sentences.append(f"{step}, throughput fell from {change}, where {least:,.4g} is explained")
        if after.p50_seconds > most:
            change = f"{before.p50_seconds * 1e3:.3g} to {after.p50_seconds * 1e3:.3g} ms"
            sentences.append(f"{step}, p50 rose from {change}, where {most * 1e3:.3g} ms is explained")
    return sentences


def from_best(growth: Growth, points: Sequence[Point]) -> str | None:
    """How the last point compares with the best before it, as a sentence, where it fell far below by small steps."""
    best = max(points, key=lambda point: point.throughput)
    last = points[-1]
    least = best.throughput * growth.keeps(last.size / best.size) / SLACK
    if last.throughput >= least:
        return None
    return (
        f"from the best at {best.size:,.0f} to {last.size:,.0f} {growth.axis}, throughput fell from "
        f"{best.throughput:,.4g} to {last.throughput:,.4g} {growth.unit}, where {least:,.4g} is explained"
    )
