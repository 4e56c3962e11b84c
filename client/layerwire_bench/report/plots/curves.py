"""Lines over loads: latency against throughput, percentiles, batches and processor time.

It knows summaries and the canvas; neither pages nor servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from matplotlib.figure import Figure

from layerwire_bench.report import numbers
from layerwire_bench.report.plots import canvas
from layerwire_bench.report.plots.canvas import INK, PERCENTILE_LOOKS, SERIES, Draw, Look, Plot
from layerwire_bench.report.summary import PERCENTILES, Summary

_SOLID, _DASHED = Look(INK), Look(INK, dash="5 2.5", hollow=True)


def by_target(rows: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Those with latency; as many targets as there are looks."""
    groups: dict[str, list[Summary]] = {}
    for summary in rows:
        if summary.latency is not None:
            groups.setdefault(summary.target, []).append(summary)
    return dict(list(groups.items())[: len(SERIES)])


def load_name(rows: Sequence[Summary]) -> str:
    """What an axis of loads is called."""
    return "callers" if rows[0].load.mode == "closed" else "calls offered per second"


def target_keys(groups: Mapping[str, object]) -> dict[str, Look]:
    """A legend of targets; none where there is one only."""
    return dict(zip(groups, SERIES, strict=False)) if len(groups) > 1 else {}


def _in_style(look: Look, style: Look) -> Look:
    """A target's colour and mark in the style of one of its lines."""
    return replace(look, dash=style.dash, hollow=style.hollow)


def _milliseconds(group: Sequence[Summary], field: str) -> list[float]:
    return [1e3 * getattr(summary.latency, field) for summary in group]


def throughput_latency(rows: Sequence[Summary]) -> Plot | None:
    """Median and p99 against throughput, a line a target, points labelled with their loads."""
    groups = by_target(rows)
    if max((len(group) for group in groups.values()), default=0) < 2:
        return None
    everything = [summary for group in groups.values() for summary in group]
    keys = target_keys(groups)
    styles = {"p50": _SOLID, "p99": _DASHED} if keys else {name: PERCENTILE_LOOKS[name] for name in ("p50", "p99")}

    def draw(figure: Figure) -> None:
        axes, values = figure.subplots(), []
        for target, group in groups.items():
            xs = [summary.throughput for summary in group]
            for percentile, style in styles.items():
                look = _in_style(keys[target], style) if keys else style
                ys = _milliseconds(group, f"{percentile}_seconds")
                values += ys
                canvas.line(axes, xs, ys, look)
                for x, y, summary in zip(xs, ys, group, strict=True) if percentile == "p99" else ():
                    canvas.label(axes, canvas.tick(summary.load.size), (x, y), (-5, 5), ha="right", color=look.color)
        canvas.scale(axes.xaxis, [summary.throughput for summary in everything], log=False)
        canvas.scale(axes.yaxis, values)
        axes.set(xlabel="calls answered per second", ylabel="latency, ms")

    alt = " ".join(f"{target}: from {_text(group[0])} to {_text(group[-1])}." for target, group in groups.items())
    caption = f"Numbers at points of p99 are {load_name(everything)}. Right and low is good."
    return canvas.plot(
        "throughput-latency", "Throughput against latency", draw, 290, alt, caption, (keys | styles).items()
    )


def _text(summary: Summary) -> str:
    assert summary.latency is not None
    p99 = numbers.duration(summary.latency.p99_seconds)
    return f"{numbers.number(summary.throughput)} calls/s with p99 {p99} at {summary.load}"


class _Line(NamedTuple):
    """A line over loads."""

    look: Look
    loads: list[float]
    values: list[float]


def _over_loads(panels: Mapping[str, Sequence[_Line]], load: str, unit: str) -> Draw:
    """Panels by their titles, with the same loads and the same scale."""
    lines = [line for panel in panels.values() for line in panel]

    def draw(figure: Figure) -> None:
        all_axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (title, panel) in zip(all_axes, panels.items(), strict=True):
            for look, loads, values in panel:
                canvas.line(axes, loads, values, look)
            axes.set(ylabel=unit, title=title)
        canvas.loads_axis(all_axes[0].xaxis, [load for line in lines for load in line.loads])
        canvas.scale(all_axes[0].yaxis, [value for line in lines for value in line.values])
        all_axes[-1].set_xlabel(load)

    return draw


def percentiles(rows: Sequence[Summary]) -> Plot | None:
    """Percentiles by load, a panel a target."""
    groups = {target: group for target, group in by_target(rows).items() if len(group) > 1}
    if not groups:
        return None
    panels = {
        canvas.short(target) if len(groups) > 1 else "": [
            _Line(PERCENTILE_LOOKS[name], [summary.load.size for summary in group], _milliseconds(group, field))
            for name, field in PERCENTILES
        ]
        for target, group in groups.items()
    }
    draw = _over_loads(panels, load_name(next(iter(groups.values()))), "latency, ms")
    alt = " ".join(f"{target}: p99 {_change(group, 'p99_seconds')}." for target, group in groups.items())
    height = 290 if len(groups) == 1 else 40 + 165 * len(groups)
    return canvas.plot("percentiles", "Percentiles by load", draw, height, alt, keys=PERCENTILE_LOOKS.items())


def _change(group: Sequence[Summary], field: str) -> str:
    first, last = (numbers.duration(getattr(summary.latency, field)) for summary in (group[0], group[-1]))
    return f"from {first} at {group[0].load} to {last} at {group[-1].load}"


_Series = Sequence[tuple[str, Look, Callable[[Summary], float | None]]]  # names, styles and values


def batches(rows: Sequence[Summary]) -> Plot | None:
    """Rows that the server ran together, by load."""
    series = (("", _SOLID, lambda summary: summary.batch_rows),)
    caption = "How many rows the server ran at once."
    return _by_load(rows, "batches", "Batches", "rows a batch, mean", series, caption)


def processor(rows: Sequence[Summary]) -> Plot | None:
    """Processor time of a call, the client's beside the server's, by load."""
    series: _Series = (
        ("server", _SOLID, lambda summary: _microseconds(summary.server_seconds_per_call)),
        ("load tester", _DASHED, lambda summary: _microseconds(summary.client_seconds_per_call)),
    )
    caption = "What a call costs the server, and what it costs to ask it."
    return _by_load(rows, "processor", "Processor time of a call", "µs per call", series, caption)


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e6 * seconds


def _by_load(rows: Sequence[Summary], name: str, title: str, unit: str, series: _Series, caption: str) -> Plot | None:
    groups = by_target(rows)
    lines: list[_Line] = []
    names: set[str] = set()  # of targets and series that there is a line of
    for look, (target, group) in zip(SERIES, groups.items(), strict=False):
        for text, style, value in series:
            points = [(summary.load.size, y) for summary in group if (y := value(summary)) is not None]
            if len(points) > 1:
                names |= {target, text}
                lines.append(_Line(_in_style(look, style), *map(list, zip(*points, strict=True))))
    if not lines:
        return None
    draw = _over_loads({"": lines}, load_name(next(iter(groups.values()))), unit)
    alt = f"{unit}, from {numbers.number(lines[0].values[0])} to {numbers.number(lines[0].values[-1])}."
    look = SERIES[0] if len(groups) == 1 else _SOLID
    keys = target_keys(groups) | {text: _in_style(look, style) for text, style, _ in series if text}
    there = [(text, look) for text, look in keys.items() if text in names]
    return canvas.plot(name, title, draw, 250, alt, caption, there)
