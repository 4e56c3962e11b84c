"""One row a target, a load or a part: percentiles as dots, throughput and phases as bars, ratios with their range.

It knows summaries and drawing; neither pages nor servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from layerwire_bench.report import numbers
from layerwire_bench.report.plots import canvas
from layerwire_bench.report.plots.canvas import GREEN, GREY, INK, ORANGE, PURPLE, SERIES, SKY, Key, Look, Plot
from layerwire_bench.report.plots.curves import PERCENTILE_LOOKS, grouped, load_name, target_keys
from layerwire_bench.report.summary import PERCENTILES, PHASES, REST, Summary, size
from layerwire_bench.result import Latency, Load, Part, Ratio

PHASE_LOOKS = {
    name: Look(color, fill=True)
    for (name, _), color in zip(PHASES, (ORANGE, SKY, GREEN, PURPLE), strict=True)
} | {REST: Look(GREY, fill=True)}  # fmt: skip
_ROW = 34  # units of height, with the name above the row


def latencies(found: Sequence[Summary]) -> Plot | None:
    """Percentiles of each target at the only load."""
    groups = grouped(found)
    if not groups or max(len(group) for group in groups.values()) > 1:
        return None
    rows = [(target, group[0].latency) for target, group in groups.items()]
    return _dots("latency", "Latency", [(name, latency) for name, latency in rows if latency is not None])


def parts(found: Sequence[Part], load: Load) -> Plot | None:
    """Percentiles of each entry of a mix."""
    rows = [(part.name, part.latency) for part in found if part.latency is not None]
    return _dots("parts", f"Latency of the parts at {load}", rows, wide=True) if len(rows) > 1 else None


def _dots(name: str, what: str, rows: Sequence[tuple[str, Latency]], *, wide: bool = False) -> Plot:
    ends = [1e3 * value for _, each in rows for value in (each.minimum_seconds, each.maximum_seconds) if value > 0]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for at, (row, latency) in enumerate(rows):
            axes.hlines(at, 1e3 * latency.minimum_seconds, 1e3 * latency.maximum_seconds, color=GREY, linewidth=2.5)
            for percentile, field in PERCENTILES:
                canvas.line(axes, [1e3 * getattr(latency, field)], [at], PERCENTILE_LOOKS[percentile])
            if len(rows) > 1:
                _name(axes, at, row, GREY)
        canvas.scale(axes.xaxis, ends, log=True)
        _rows_axis(axes, len(rows))
        axes.set_xlabel("latency, ms")

    alt = "; ".join(f"{row}: p50 {_ms(latency.p50_seconds)}, p99 {_ms(latency.p99_seconds)}" for row, latency in rows)
    keys = tuple(Key(PERCENTILE_LOOKS[percentile], percentile) for percentile, _ in PERCENTILES)
    caption = "Lines reach from the shortest to the longest."
    height = 62 + _ROW * max(len(rows), 2)
    spanning = canvas.svg(f"{name}-wide", what, alt, height, draw, width=canvas.WIDE) if wide else None
    return Plot(name, what, caption, keys, canvas.svg(name, what, alt, height, draw), spanning)


def _ms(seconds: float) -> str:
    return f"{numbers.milliseconds(seconds)} ms"


def _rows_axis(axes: Any, count: int) -> None:
    axes.set_ylim(count - 0.55, -0.85)
    axes.yaxis.set_visible(False)
    axes.spines["left"].set_visible(False)


def _name(axes: Any, at: float, text: str, color: str) -> None:
    """Above its row, where a long one has room."""
    axes.annotate(
        canvas.short(text, 44),
        (0, at - 0.28),
        xycoords=axes.get_yaxis_transform(),
        va="bottom",
        color=INK if color == GREY else color,
    )


def throughputs(found: Sequence[Summary]) -> Plot | None:
    """Throughput of several targets at the only load."""
    groups = grouped(found)
    if len(groups) < 2 or max(len(group) for group in groups.values()) > 1:
        return None
    rows = [(target, group[0].throughput) for target, group in groups.items()]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for at, ((target, value), look) in enumerate(zip(rows, SERIES, strict=False)):
            axes.barh(at, value, height=0.4, color=look.color)
            axes.annotate(numbers.number(value), (value, at), xytext=(4, 0), textcoords="offset points", va="center")
            _name(axes, at, target, INK)
        canvas.scale(axes.xaxis, [1.1 * value for _, value in rows], log=False)
        _rows_axis(axes, len(rows))
        axes.set_xlabel("calls answered per second")

    name, what = "throughput", f"Throughput, {next(iter(groups.values()))[0].load}"
    alt = "; ".join(f"{target}: {numbers.number(value)} calls/s" for target, value in rows)
    return Plot(name, what, "", (), canvas.svg(name, what, alt, 62 + _ROW * len(rows), draw))


def phases(found: Sequence[Summary], *, shares: bool = False) -> Plot | None:
    """The server's phases and the rest under the client's mean latency, in milliseconds or as shares of it."""
    groups = {target: told for target, group in grouped(found).items() if (told := [s for s in group if s.phases])}
    several = max((len(group) for group in groups.values()), default=0) > 1
    if not groups or (shares and not several):
        return None
    counts = [len(group) for group in groups.values()]

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

    name, what = ("shares", "Shares of the mean latency") if shares else ("phases", "Where the time goes")
    keys = tuple(Key(look, phase) for phase, look in PHASE_LOOKS.items() if _told(groups, phase))
    height = 70 + 27 * sum(counts) + 34 * (len(groups) - 1) + (0 if several else 14 * len(groups))
    caption = (
        "As the mean of each load grows, what of it is whose."
        if shares
        else "Means of the server's phases under the mean that the client saw."
    )
    alt = "; ".join(_phases_text(target, group[-1]) for target, group in groups.items())
    return Plot(name, what, caption, keys, canvas.svg(name, what, alt, height, draw))


def _total(summary: Summary) -> float:
    return sum(summary.phases.values()) + (summary.rest_seconds or 0.0)


def _told(groups: dict[str, list[Summary]], phase: str) -> bool:
    return phase == REST or any(phase in summary.phases for group in groups.values() for summary in group)


def _stack(axes: Any, group: Sequence[Summary], *, shares: bool) -> None:
    for at, summary in enumerate(group):
        left, total = 0.0, _total(summary)
        factor = 100 / total if shares else 1e3
        for phase, seconds in (*summary.phases.items(), (REST, summary.rest_seconds or 0.0)):
            width = factor * seconds
            axes.barh(at, width, 0.72, left, color=PHASE_LOOKS[phase].color, edgecolor="white", linewidth=0.6)
            left += width
        if not shares:
            text = numbers.milliseconds(total)
            axes.annotate(text, (left, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=10.5)
    axes.set_yticks(range(len(group)), [canvas.tick(summary.offered) for summary in group])
    axes.set_ylim(len(group) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    if len(group) == 1:
        axes.set_yticks([])


def _phases_text(target: str, summary: Summary) -> str:
    parts = (*summary.phases.items(), (REST, summary.rest_seconds or 0.0))
    told = ", ".join(f"{phase} {_ms(seconds)}" for phase, seconds in parts)
    return f"{target} at {summary.load}: {told}"


_METRICS = (("throughput", "throughput"), ("p50 latency", "p50"), ("p99 latency", "p99"))


def ratios(found: Sequence[Ratio], rounds: str, groups: dict[str, list[Summary]]) -> Plot | None:
    """Each target as a multiple of the first, with the range over rounds."""
    if not found:
        return None
    loads = sorted({ratio.load for ratio in found}, key=size)
    names = list(groups)
    places = {ratio.target: at for at, ratio in enumerate(found)}
    others = sorted(places, key=places.__getitem__)
    values = [1.0, *(value for ratio in found for _, field in _METRICS for value in _range(ratio, field))]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(_METRICS), 1, sharex=True)
        for axes, (metric, field) in zip(panels, _METRICS, strict=True):
            axes.axvline(1, color=INK, linewidth=1)
            for ratio in found:
                shift = (others.index(ratio.target) - (len(others) - 1) / 2) * 0.7 / len(others)
                look = SERIES[names.index(ratio.target)] if ratio.target in names else SERIES[-1]
                _interval(axes, ratio, field, loads.index(ratio.load) + shift, look)
            axes.set_title(metric)
            axes.set_yticks(range(len(loads)), [canvas.tick(size(load)) for load in loads] if len(loads) > 1 else [""])
            axes.set_ylim(len(loads) - 0.4, -0.6)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
            axes.set_ylabel(load_name(next(iter(groups.values()))) if len(loads) > 1 else "")
        canvas.scale(panels[0].xaxis, values, log=True)
        ticks = [value for value in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
                 if min(values) / 1.25 <= value <= max(values) * 1.35]  # fmt: skip
        panels[0].xaxis.set_major_locator(FixedLocator(ticks))
        panels[-1].set_xlabel("times the first target's")

    name, what = "ratios", "Ratios"
    alt = "; ".join(
        f"{ratio.target} at {ratio.load}: throughput {numbers.number(ratio.throughput)} times" for ratio in found
    )
    height = 76 + len(_METRICS) * (30 + 17 * len(loads) * max(len(others), 1))
    caption = f"Medians over {rounds}; lines reach from the least to the most of single rounds."
    keys = tuple(key for key in target_keys(groups) if key.text in others)
    return Plot(name, what, caption, keys, canvas.svg(name, what, alt, height, draw))


def _range(ratio: Ratio, field: str) -> list[float]:
    found = (getattr(ratio, f"{field}{end}") for end in ("_least", "", "_most"))
    return [value for value in found if value is not None and value > 0]


def _interval(axes: Any, ratio: Ratio, field: str, at: float, look: Look) -> None:
    found = _range(ratio, field)
    if len(found) < 3:
        return
    least, middle, most = found
    axes.hlines(at, least, most, color=look.color, linewidth=2)
    canvas.line(axes, [middle], [at], look)
    text = numbers.number(middle)
    axes.annotate(text, (most, at), xytext=(7, 0), textcoords="offset points", va="center", fontsize=10.5)
