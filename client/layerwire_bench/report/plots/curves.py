"""Lines over loads: latency against throughput, percentiles, batches and processor time.

It knows summaries and the canvas; neither pages nor servers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from layerwire_bench.report import numbers
from layerwire_bench.report.plots import canvas
from layerwire_bench.report.plots.canvas import INK, PERCENTILE_LOOKS, SERIES, Key, Look, Plot
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


def target_keys(groups: dict[str, list[Summary]]) -> tuple[Key, ...]:
    """A legend of targets; none where there is one only."""
    return tuple(Key(look, name) for look, name in zip(SERIES, groups, strict=False)) if len(groups) > 1 else ()


def throughput_latency(rows: Sequence[Summary]) -> Plot | None:
    """Median and p99 against throughput, a line a target, points labelled with their loads."""
    groups = by_target(rows)
    if max((len(group) for group in groups.values()), default=0) < 2:
        return None
    everything = [summary for group in groups.values() for summary in group]

    def draw(figure: Figure) -> None:
        axes, values = figure.subplots(), []
        for target, percentile, look in _throughput_series(groups):
            ys = [1e3 * getattr(summary.latency, f"{percentile}_seconds") for summary in groups[target]]
            xs = [summary.throughput for summary in groups[target]]
            values += ys
            canvas.line(axes, xs, ys, look)
            for x, y, summary in zip(xs, ys, groups[target], strict=True) if percentile == "p99" else ():
                canvas.label(axes, canvas.tick(summary.load.size), (x, y), (-5, 5), ha="right", color=look.color)
        canvas.scale(axes.xaxis, [summary.throughput for summary in everything], log=False)
        canvas.scale(axes.yaxis, values)
        axes.set(xlabel="calls answered per second", ylabel="latency, ms")

    keys = (
        (*target_keys(groups), Key(_SOLID, "p50"), Key(_DASHED, "p99"))
        if len(groups) > 1
        else tuple(Key(PERCENTILE_LOOKS[percentile], percentile) for percentile in ("p50", "p99"))
    )
    alt = " ".join(f"{target}: from {_text(group[0])} to {_text(group[-1])}." for target, group in groups.items())
    caption = f"Numbers at points of p99 are {load_name(everything)}. Right and low is good."
    return canvas.plot("throughput-latency", "Throughput against latency", draw, 290, alt, caption, keys)


def _throughput_series(groups: dict[str, list[Summary]]) -> list[tuple[str, str, Look]]:
    if len(groups) == 1:
        return [(target, name, PERCENTILE_LOOKS[name]) for target in groups for name in ("p50", "p99")]
    return [
        (target, name, Look(look.color, look.mark, dash, hollow=bool(dash)))
        for target, look in zip(groups, SERIES, strict=False)
        for name, dash in (("p50", ""), ("p99", _DASHED.dash))
    ]


def _text(summary: Summary) -> str:
    assert summary.latency is not None
    p99 = numbers.duration(summary.latency.p99_seconds)
    return f"{numbers.number(summary.throughput)} calls/s with p99 {p99} at {summary.load}"


def percentiles(rows: Sequence[Summary]) -> Plot | None:
    """Percentiles by load, a panel a target."""
    groups = {target: group for target, group in by_target(rows).items() if len(group) > 1}
    if not groups:
        return None
    everything = [summary for group in groups.values() for summary in group]
    values = [1e3 * getattr(summary.latency, field) for summary in everything for _, field in PERCENTILES]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(groups), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (target, group) in zip(panels, groups.items(), strict=True):
            for percentile, field in PERCENTILES:
                ys = [1e3 * getattr(summary.latency, field) for summary in group]
                canvas.line(axes, [summary.load.size for summary in group], ys, PERCENTILE_LOOKS[percentile])
            axes.set(ylabel="latency, ms", title=canvas.short(target) if len(groups) > 1 else "")
        canvas.loads_axis(panels[0].xaxis, [summary.load.size for summary in everything])
        canvas.scale(panels[0].yaxis, values)
        panels[-1].set_xlabel(load_name(everything))

    alt = " ".join(f"{target}: p99 {_change(group, 'p99_seconds')}." for target, group in groups.items())
    keys = [Key(PERCENTILE_LOOKS[percentile], percentile) for percentile, _ in PERCENTILES]
    height = 290 if len(groups) == 1 else 40 + 165 * len(groups)
    return canvas.plot("percentiles", "Percentiles by load", draw, height, alt, keys=keys)


def _change(group: Sequence[Summary], field: str) -> str:
    first, last = (numbers.duration(getattr(summary.latency, field)) for summary in (group[0], group[-1]))
    return f"from {first} at {group[0].load} to {last} at {group[-1].load}"


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


_Series = Sequence[tuple[str, Look, Callable[[Summary], float | None]]]  # names, styles and values


def _by_load(rows: Sequence[Summary], name: str, title: str, unit: str, series: _Series, caption: str) -> Plot | None:
    groups = by_target(rows)
    lines: list[tuple[Look, list[float], list[float]]] = []
    names: set[str] = set()  # of targets and series that there is a line of
    for look, (target, group) in zip(SERIES, groups.items(), strict=False):
        for text, style, value in series:
            points = [(summary.load.size, y) for summary in group if (y := value(summary)) is not None]
            if len(points) > 1:
                xs, ys = (list(column) for column in zip(*points, strict=True))
                names |= {target, text}
                lines.append((Look(look.color, look.mark, style.dash, hollow=style.hollow), xs, ys))
    if not lines:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for look, xs, ys in lines:
            canvas.line(axes, xs, ys, look)
        canvas.loads_axis(axes.xaxis, [x for _, xs, _ in lines for x in xs])
        canvas.scale(axes.yaxis, [y for _, _, ys in lines for y in ys])
        axes.set(xlabel=load_name(next(iter(groups.values()))), ylabel=unit)

    alt = f"{unit}, from {numbers.number(lines[0][2][0])} to {numbers.number(lines[0][2][-1])}."
    color, mark = (SERIES[0].color, SERIES[0].mark) if len(groups) == 1 else (INK, "")
    styles = [(text, style) for text, style, _ in series if text and text in names]
    keys = (
        *(key for key in target_keys(groups) if key.text in names),
        *(Key(Look(color, mark, style.dash, hollow=style.hollow), text) for text, style in styles),
    )
    return canvas.plot(name, title, draw, 250, alt, caption, keys)
