"""Lines over loads: latency against throughput, percentiles, batches and processor time.

It knows summaries and drawing; neither pages nor servers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from layerwire_bench.report import numbers
from layerwire_bench.report.plots import canvas
from layerwire_bench.report.plots.canvas import BLUE, GREEN, INK, ORANGE, SERIES, SKY, VERMILION, Key, Look, Plot
from layerwire_bench.report.summary import PERCENTILES, Summary

PERCENTILE_LOOKS = {
    "p50": Look(GREEN, "o"),
    "p90": Look(SKY, "^"),
    "p95": Look(ORANGE, "D"),
    "p99": Look(BLUE, "s"),
    "p99.9": Look(VERMILION, "v"),
}
_SOLID, _DASHED = Look(INK), Look(INK, dash="5 2.5", hollow=True)


def grouped(found: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Those with latency by target; as many targets as there are looks."""
    groups: dict[str, list[Summary]] = {}
    for summary in found:
        if summary.latency is not None:
            groups.setdefault(summary.target, []).append(summary)
    return dict(list(groups.items())[: len(SERIES)])


def load_name(found: Sequence[Summary]) -> str:
    """What an axis of loads is called."""
    return "callers" if found[0].load.mode == "closed" else "calls offered per second"


def target_keys(groups: dict[str, list[Summary]]) -> tuple[Key, ...]:
    """A legend of targets; none where there is one only."""
    return tuple(Key(look, name) for look, name in zip(SERIES, groups, strict=False)) if len(groups) > 1 else ()


def throughput_latency(found: Sequence[Summary]) -> Plot | None:
    """Median and p99 against throughput, a line a target, points labelled with their loads."""
    groups = grouped(found)
    if max((len(group) for group in groups.values()), default=0) < 2:
        return None
    everything = [summary for group in groups.values() for summary in group]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for target, percentile, look in _throughput_series(groups):
            ys = [1e3 * getattr(summary.latency, f"{percentile}_seconds") for summary in groups[target]]
            xs = [summary.throughput for summary in groups[target]]
            canvas.line(axes, xs, ys, look)
            if percentile == "p99":
                _label(axes, xs, ys, groups[target], look)
        canvas.scale(axes.xaxis, [summary.throughput for summary in everything], log=False)
        canvas.scale(axes.yaxis, [1e3 * value for summary in everything for value in _p50_p99(summary)])
        axes.set(xlabel="calls answered per second", ylabel="latency, ms")

    name, what = "throughput-latency", "Throughput against latency"
    keys = (
        (*target_keys(groups), Key(_SOLID, "p50"), Key(_DASHED, "p99"))
        if len(groups) > 1
        else tuple(Key(PERCENTILE_LOOKS[percentile], percentile) for percentile in ("p50", "p99"))
    )
    unit = "callers" if everything[0].load.mode == "closed" else "calls offered per second"
    alt = " ".join(
        f"{target}: from {_told(group[0])} to {_told(group[-1])}." for target, group in groups.items() if group
    )
    caption = f"Numbers at points of p99 are {unit}. Right and low is good."
    return Plot(name, what, caption, keys, canvas.svg(name, what, alt, 290, draw))


def _throughput_series(groups: dict[str, list[Summary]]) -> list[tuple[str, str, Look]]:
    if len(groups) == 1:
        return [(target, name, PERCENTILE_LOOKS[name]) for target in groups for name in ("p50", "p99")]
    return [
        (target, name, Look(look.color, look.mark, dash, hollow=bool(dash)))
        for target, look in zip(groups, SERIES, strict=False)
        for name, dash in (("p50", ""), ("p99", _DASHED.dash))
    ]


def _p50_p99(summary: Summary) -> tuple[float, float]:
    assert summary.latency is not None
    return summary.latency.p50_seconds, summary.latency.p99_seconds


def _label(axes: Any, xs: Sequence[float], ys: Sequence[float], group: Sequence[Summary], look: Look) -> None:
    for x, y, summary in zip(xs, ys, group, strict=True):
        axes.annotate(
            canvas.tick(summary.offered),
            (x, y),
            xytext=(-5, 5),
            textcoords="offset points",
            ha="right",
            color=look.color,
            fontsize=10.5,
        )


def _told(summary: Summary) -> str:
    assert summary.latency is not None
    return (
        f"{numbers.number(summary.throughput)} calls/s with p99 {numbers.duration(summary.latency.p99_seconds)} "
        f"at {summary.load}"
    )


def percentiles(found: Sequence[Summary]) -> Plot | None:
    """Percentiles by load, a panel a target."""
    groups = {target: group for target, group in grouped(found).items() if len(group) > 1}
    if not groups:
        return None
    everything = [summary for group in groups.values() for summary in group]
    values = [1e3 * getattr(summary.latency, field) for summary in everything for _, field in PERCENTILES]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(groups), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (target, group) in zip(panels, groups.items(), strict=True):
            for percentile, field in PERCENTILES:
                ys = [1e3 * getattr(summary.latency, field) for summary in group]
                canvas.line(axes, [summary.offered for summary in group], ys, PERCENTILE_LOOKS[percentile])
            axes.set(ylabel="latency, ms", title=canvas.short(target) if len(groups) > 1 else "")
        canvas.loads_axis(panels[0].xaxis, [summary.offered for summary in everything])
        canvas.scale(panels[0].yaxis, values)
        panels[-1].set_xlabel(load_name(everything))

    name, what = "percentiles", "Percentiles by load"
    alt = " ".join(f"{target}: p99 {_grown(group, 'p99_seconds')}." for target, group in groups.items())
    keys = tuple(Key(PERCENTILE_LOOKS[percentile], percentile) for percentile, _ in PERCENTILES)
    height = 290 if len(groups) == 1 else 40 + 165 * len(groups)
    return Plot(name, what, "", keys, canvas.svg(name, what, alt, height, draw))


def _grown(group: Sequence[Summary], field: str) -> str:
    first, last = (numbers.duration(getattr(summary.latency, field)) for summary in (group[0], group[-1]))
    return f"from {first} at {group[0].load} to {last} at {group[-1].load}"


def batches(found: Sequence[Summary]) -> Plot | None:
    """Rows that the server ran together, by load."""
    return _by_load(
        found,
        "batches",
        "Batches",
        "rows a batch, mean",
        (("", _SOLID, lambda summary: summary.batch_rows),),
        "How many rows the server ran at once.",
    )


def processor(found: Sequence[Summary]) -> Plot | None:
    """Processor time of a call, the client's beside the server's, by load."""
    return _by_load(
        found,
        "processor",
        "Processor time of a call",
        "µs per call",
        (
            ("server", _SOLID, lambda summary: _microseconds(summary.server_seconds_per_call)),
            ("load tester", _DASHED, lambda summary: _microseconds(summary.client_seconds_per_call)),
        ),
        "What a call costs the server, and what it costs to ask it.",
    )


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e6 * seconds


def _by_load(
    found: Sequence[Summary],
    name: str,
    what: str,
    unit: str,
    series: Sequence[tuple[str, Look, Callable[[Summary], float | None]]],
    caption: str,
) -> Plot | None:
    groups = grouped(found)
    lines: list[tuple[Look, list[float], list[float]]] = []
    shown: set[str] = set()  # targets and series
    for look, (target, group) in zip(SERIES, groups.items(), strict=False):
        for text, style, value in series:
            points = [(summary.offered, known) for summary in group if (known := value(summary)) is not None]
            if len(points) > 1:
                xs, ys = (list(column) for column in zip(*points, strict=True))
                shown |= {target, text}
                lines.append((Look(look.color, look.mark, style.dash, hollow=style.hollow), xs, ys))
    if not lines:
        return None
    everything = [summary for group in groups.values() for summary in group]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for look, xs, ys in lines:
            canvas.line(axes, xs, ys, look)
        canvas.loads_axis(axes.xaxis, [x for _, xs, _ in lines for x in xs])
        canvas.scale(axes.yaxis, [y for _, _, ys in lines for y in ys])
        axes.set(xlabel=load_name(everything), ylabel=unit)

    alt = f"{unit}, from {numbers.number(lines[0][2][0])} to {numbers.number(lines[0][2][-1])}."
    color = SERIES[0].color if len(groups) == 1 else INK
    mark = SERIES[0].mark if len(groups) == 1 else ""
    drawn = [(text, style) for text, style, _ in series if text and text in shown]
    keys = (Key(Look(color, mark, style.dash, hollow=style.hollow), text) for text, style in drawn)
    named = (key for key in target_keys(groups) if key.text in shown)
    return Plot(name, what, caption, (*named, *keys), canvas.svg(name, what, alt, 250, draw))
