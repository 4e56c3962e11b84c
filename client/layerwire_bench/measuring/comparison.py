"""Several targets compared: whose turn it is in a round, and the ratio of medians over rounds.

Pure: it knows points; nothing of how they were measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from layerwire_bench.result import Load, Point, Ratio


def turns(targets: int, number: int) -> list[int]:
    """Indices of targets in the round of this number: there and back, so that none always goes first."""
    order = list(range(targets))
    return order if number % 2 else order[::-1]


def ratios(points: Sequence[Point]) -> tuple[Ratio, ...]:
    """Each target with the first, for every load; of rounds that both finished."""
    targets = list(dict.fromkeys(point.target for point in sorted(points, key=lambda point: point.round)))
    loads = list(dict.fromkeys(point.load for point in points))
    all_ratios = (_ratio(points, load, targets[0], target) for load in loads for target in targets[1:])
    return tuple(ratio for ratio in all_ratios if ratio is not None)


def _ratio(points: Sequence[Point], load: Load, baseline: str, target: str) -> Ratio | None:
    rounds: dict[int, dict[str, Point]] = {}
    for point in points:
        if point.load == load:
            rounds.setdefault(point.round, {})[point.target] = point
    pairs = [(both[target], both[baseline]) for both in rounds.values() if target in both and baseline in both]
    throughput = _spread(pairs, lambda point: point.throughput)
    if throughput is None:
        return None
    nothing = (None, None, None)
    p50 = _spread(pairs, lambda point: None if point.latency is None else point.latency.p50_seconds) or nothing
    p99 = _spread(pairs, lambda point: None if point.latency is None else point.latency.p99_seconds) or nothing
    return Ratio(target, baseline, load, len(pairs), *throughput, *p50, *p99)


def _spread(
    pairs: Sequence[tuple[Point, Point]], figure: Callable[[Point], float | None]
) -> tuple[float, float, float] | None:
    """Ratio of medians, and least and most of the ratios of single rounds."""
    values = [(figure(mine), figure(other)) for mine, other in pairs]
    good = [(mine, other) for mine, other in values if mine is not None and other]
    if not good:
        return None
    single = [mine / other for mine, other in good]
    medians = [statistics.median(column) for column in zip(*good, strict=True)]
    return medians[0] / medians[1], min(single), max(single)
