"""One row a target, a load or a part: percentiles as dots, throughput and phases as bars, ratios with their range.

It knows summaries and the canvas; neither pages nor servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from layerwire_bench.report import numbers
from layerwire_bench.report.plots import canvas
from layerwire_bench.report.plots.canvas import INK, SERIES, Look, Plot
from layerwire_bench.report.plots.curves import by_target, load_name, target_keys
from layerwire_bench.report.summary import PERCENTILES, PHASES, REST, Summary
from layerwire_bench.result import Latency, Load, Part, Ratio

_COLORS = (canvas.ORANGE, canvas.SKY, canvas.GREEN, canvas.PURPLE, canvas.GREY)
_PHASE_COLORS = dict(zip([*dict(PHASES), REST], _COLORS, strict=True))
_ROW = 34  # units of height, with the name above the row
_RATIO_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def latencies(rows: Sequence[Summary]) -> Plot | None:
    """Percentiles of each target at the only load."""
    groups = by_target(rows)
    if not groups or max(len(group) for group in groups.values()) > 1:
        return None
    singles = [(target, group[0].latency) for target, group in groups.items()]
    return _dots("latency", "Latency", [(name, latency) for name, latency in singles if latency is not None])


def parts(rows: Sequence[Part], load: Load) -> Plot | None:
    """Percentiles of each entry of a mix."""
    dots = [(part.name, part.latency) for part in rows if part.latency is not None]
    return _dots("parts", f"Latency of the parts at {load}", dots, wide=True) if len(dots) > 1 else None


def _dots(name: str, title: str, rows: Sequence[tuple[str, Latency]], *, wide: bool = False) -> Plot:
    ends = [1e3 * value for _, each in rows for value in (each.minimum_seconds, each.maximum_seconds) if value > 0]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for at, (row, latency) in enumerate(rows):
            axes.hlines(
                at, 1e3 * latency.minimum_seconds, 1e3 * latency.maximum_seconds, color=canvas.GREY, linewidth=2.5
            )
            for percentile, field in PERCENTILES:
                canvas.line(axes, [1e3 * getattr(latency, field)], [at], canvas.PERCENTILE_LOOKS[percentile])
            if len(rows) > 1:
                _name(axes, at, row)
        canvas.scale(axes.xaxis, ends, log=True)
        _names_above(axes, len(rows))
        axes.set_xlabel("latency, ms")

    alt = "; ".join(f"{row}: p50 {_ms(latency.p50_seconds)}, p99 {_ms(latency.p99_seconds)}" for row, latency in rows)
    height = 62 + _ROW * max(len(rows), 2)
    caption = "Lines reach from the shortest to the longest."
    return canvas.plot(
        name, title, draw, height, alt, caption, canvas.PERCENTILE_LOOKS.items(), height if wide else None
    )


def _ms(seconds: float) -> str:
    return f"{numbers.milliseconds(seconds)} ms"


def _names_above(axes: Any, count: int) -> None:
    axes.set_ylim(count - 0.55, -0.85)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)


def _name(axes: Any, at: float, text: str) -> None:
    """Above its row, where a long one has room."""
    place = (0, at - 0.28)
    axes.annotate(canvas.short(text, 44), place, xycoords=axes.get_yaxis_transform(), va="bottom", color=INK)


def throughputs(rows: Sequence[Summary]) -> Plot | None:
    """Throughput of several targets at the only load."""
    groups = by_target(rows)
    if len(groups) < 2 or max(len(group) for group in groups.values()) > 1:
        return None
    bars = [(target, group[0].throughput) for target, group in groups.items()]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for at, ((target, value), look) in enumerate(zip(bars, SERIES, strict=False)):
            axes.barh(at, value, height=0.4, color=look.color)
            axes.annotate(numbers.number(value), (value, at), xytext=(4, 0), textcoords="offset points", va="center")
            _name(axes, at, target)
        canvas.scale(axes.xaxis, [1.1 * value for _, value in bars], log=False)
        _names_above(axes, len(bars))
        axes.set_xlabel("calls answered per second")

    title = f"Throughput, {next(iter(groups.values()))[0].load}"
    alt = "; ".join(f"{target}: {numbers.number(value)} calls/s" for target, value in bars)
    return canvas.plot("throughput", title, draw, 62 + _ROW * len(bars), alt)


def phases(rows: Sequence[Summary], *, shares: bool = False) -> Plot | None:
    """The server's phases and the rest under the client's mean latency, in milliseconds or as shares of it."""
    with_phases = {target: [one for one in group if one.phases] for target, group in by_target(rows).items()}
    groups = {target: group for target, group in with_phases.items() if group}
    counts = [len(group) for group in groups.values()]
    several = max(counts, default=0) > 1
    if not groups or (shares and not several):
        return None

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=[n + 1 for n in counts])
        for axes, (target, group) in zip(panels[:, 0], groups.items(), strict=True):
            _stack(axes, group, shares=shares)
            axes.set_title(canvas.short(target) if len(groups) > 1 else "")
            axes.set_ylabel(load_name(group) if several else "")
        last = panels[-1, 0]
        last.set_xlabel("% of the mean latency" if shares else "mean latency, ms")
        most = 100.0 if shares else max(1e3 * _total(summary) for group in groups.values() for summary in group)
        last.set_xlim(0, most * (1.0 if shares else 1.14))
        last.xaxis.set_major_formatter(FuncFormatter(lambda value, _: canvas.tick(value)))

    there = {phase for group in groups.values() for summary in group for phase in _parts(summary)}
    keys = [(phase, Look(color, fill=True)) for phase, color in _PHASE_COLORS.items() if phase in there]
    height = 70 + 27 * sum(counts) + 34 * (len(groups) - 1) + (0 if several else 14 * len(groups))
    alt = "; ".join(_phases_text(target, group[-1]) for target, group in groups.items())
    name, title, caption = _SHARES if shares else _MEANS
    return canvas.plot(name, title, draw, height, alt, caption, keys)


_MEANS = ("phases", "Where the time goes", "Means of the server's phases under the mean that the client saw.")
_SHARES = ("shares", "Shares of the mean latency", "As the mean of each load grows, what of it is whose.")


def _parts(summary: Summary) -> dict[str, float]:
    """Of the mean latency, in seconds."""
    return {**summary.phases, REST: summary.rest_seconds or 0.0}


def _total(summary: Summary) -> float:
    return sum(_parts(summary).values())


def _stack(axes: Any, group: Sequence[Summary], *, shares: bool) -> None:
    for at, summary in enumerate(group):
        left, total = 0.0, _total(summary)
        factor = 100 / total if shares else 1e3
        for phase, seconds in _parts(summary).items():
            width = factor * seconds
            axes.barh(at, width, 0.72, left, color=_PHASE_COLORS[phase], edgecolor="white", linewidth=0.6)
            left += width
        if not shares:
            canvas.label(axes, numbers.milliseconds(total), (left, at), (4, 0), va="center")
    canvas.rows_axis(axes, [canvas.tick(summary.load.size) for summary in group])


def _phases_text(target: str, summary: Summary) -> str:
    texts = ", ".join(f"{phase} {_ms(seconds)}" for phase, seconds in _parts(summary).items())
    return f"{target} at {summary.load}: {texts}"


_METRICS = (("throughput", "throughput"), ("p50 latency", "p50"), ("p99 latency", "p99"))


def ratios(rows: Sequence[Ratio], rounds: str, groups: dict[str, list[Summary]]) -> Plot | None:
    """Each target as a multiple of the first, with the range over rounds."""
    if not rows:
        return None
    loads = sorted({ratio.load for ratio in rows}, key=lambda load: load.size)
    names = list(groups)
    places = {ratio.target: at for at, ratio in enumerate(rows)}
    others = sorted(places, key=places.__getitem__)
    values = [1.0, *(value for ratio in rows for _, field in _METRICS for value in _range(ratio, field))]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(_METRICS), 1, sharex=True)
        for axes, (metric, field) in zip(panels, _METRICS, strict=True):
            axes.axvline(1, color=INK, linewidth=1)
            for ratio in rows:
                shift = (others.index(ratio.target) - (len(others) - 1) / 2) * 0.7 / len(others)
                look = SERIES[names.index(ratio.target)] if ratio.target in names else SERIES[-1]
                _interval(axes, _range(ratio, field), loads.index(ratio.load) + shift, look)
            axes.set_title(metric)
            canvas.rows_axis(axes, [canvas.tick(load.size) for load in loads])
            axes.set_ylabel(load_name(next(iter(groups.values()))) if len(loads) > 1 else "")
        canvas.scale(panels[0].xaxis, values, log=True)
        ticks = [value for value in _RATIO_TICKS if min(values) / 1.25 <= value <= max(values) * 1.35]
        panels[0].xaxis.set_major_locator(FixedLocator(ticks))
        panels[-1].set_xlabel("times the first target's")

    alt = "; ".join(f"{one.target} at {one.load}: throughput {numbers.number(one.throughput)} times" for one in rows)
    height = 76 + len(_METRICS) * (30 + 17 * len(loads) * max(len(others), 1))
    caption = f"Medians over {rounds}; lines reach from the least to the most of single rounds."
    keys = [(target, look) for target, look in target_keys(groups).items() if target in others]
    return canvas.plot("ratios", "Ratios", draw, height, alt, caption, keys)


def _range(ratio: Ratio, field: str) -> list[float]:
    values = (getattr(ratio, f"{field}{end}") for end in ("_least", "", "_most"))
    return [value for value in values if value is not None and value > 0]


def _interval(axes: Any, ends: Sequence[float], at: float, look: Look) -> None:
    if len(ends) == 3:
        least, middle, most = ends
        axes.hlines(at, least, most, color=look.color, linewidth=2)
        canvas.line(axes, [middle], [at], look)
        canvas.label(axes, numbers.number(middle), (most, at), (7, 0), va="center")
