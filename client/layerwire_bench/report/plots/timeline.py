"""What happened when: throughput, latency and errors by window, warm-up included; and the rates that a search tried.

It knows points and the canvas; neither pages nor servers.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from layerwire_bench.report import numbers
from layerwire_bench.report.plots import canvas
from layerwire_bench.report.plots.canvas import INK, SERIES, Look, Plot
from layerwire_bench.report.summary import PERCENTILES, targets
from layerwire_bench.result import Point, Run, Window

_ERROR_LOOKS = tuple(Look(color, fill=True) for color in (canvas.VERMILION, "#7a3b00", "#e69f00", "#56b4e9", "#5b6573"))
_OTHER, _WRONG, _WARM_UP = "other errors", "wrong answers", "warm-up"


def timeline(run: Run) -> Plot | None:
    """A panel of throughput, one of latency, and one of errors where there were any."""
    windows = [window for point in run.points for window in point.windows]
    errors = _error_looks(windows)
    names = targets(run)[: len(SERIES)]
    latency = any(window.p99_seconds is not None for window in windows)
    if len(windows) < 2 or not (latency or errors):
        return None
    panels: list[Callable[[Any], None]] = []
    if latency:
        panels += [lambda axes: _throughput(axes, run, names), lambda axes: _latency(axes, run, names)]
    if errors:
        panels.append(lambda axes: _errors(axes, windows, errors))

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            panel(axes)
            _warm_up(axes, windows)
        _loads(rows[0], run, narrow=figure.bbox.width <= canvas.NARROW * 1.5)
        rows[-1].set_xlabel("seconds since the run began")
        edges = _edges(windows)
        rows[-1].set_xlim(min(edges), max(edges))

    caption = "Each step is a window; shaded is warm-up, which counts for nothing."
    if _WRONG in errors:
        caption += " A cross marks each window with wrong answers."
    alt = f"{len(windows)} windows; " + (f"with errors: {', '.join(errors)}." if errors else "without errors.")
    keys = _keys(names, errors, latency=latency)
    height, wide_height = 60 + 135 * len(panels), 60 + 120 * len(panels)
    return canvas.plot("timeline", "Timeline", draw, height, alt, caption, keys, wide_height)


def _error_looks(windows: Sequence[Window]) -> dict[str, Look]:
    """Looks of errors: wrong answers first, then most frequent first, those that there is no look for put together."""
    totals = sum((Counter(window.errors) for window in windows), Counter[str]())
    names = sorted(totals, key=lambda name: (-totals[name], name))
    if len(names) > len(_ERROR_LOOKS):
        names = [*names[: len(_ERROR_LOOKS) - 1], _OTHER]
    wrong = {_WRONG: Look(canvas.RED, fill=True)} if any(window.wrong for window in windows) else {}
    return wrong | dict(zip(names, _ERROR_LOOKS, strict=False))


def _keys(names: Sequence[str], errors: dict[str, Look], *, latency: bool) -> list[tuple[str, Look]]:
    looks = dict(zip(names, SERIES, strict=False)) if len(names) > 1 else {}
    if latency and not looks:
        looks = {name: canvas.PERCENTILE_LOOKS[name] for name in ("p50", "p99")}
    lines = [(name, Look(look.color)) for name, look in looks.items()]
    return [*lines, *errors.items(), (_WARM_UP, Look(canvas.WARM_UP, fill=True))]


def _steps(axes: Any, windows: Sequence[Window], values: Sequence[float | None], color: str) -> None:
    """One line through windows that follow each other."""
    heights = [math.nan if value is None else value for value in values for _ in range(2)]
    axes.plot(_edges(windows), heights, color=color, linewidth=1.6)


def _edges(windows: Sequence[Window]) -> list[float]:
    return [edge for window in windows for edge in (window.start_seconds, window.end_seconds)]


def _color(point: Point, names: Sequence[str], alone: str) -> str:
    if len(names) < 2:
        return alone
    return SERIES[names.index(point.target)].color if point.target in names else canvas.GREY


def _throughput(axes: Any, run: Run, names: Sequence[str]) -> None:
    for point in run.points:
        values = [window.throughput for window in point.windows]
        _steps(axes, point.windows, values, _color(point, names, INK))
    canvas.scale(axes.yaxis, [window.throughput for point in run.points for window in point.windows], log=False)
    axes.set_ylabel("calls/s")


def _latency(axes: Any, run: Run, names: Sequence[str]) -> None:
    values = []
    for point, name in itertools.product(run.points, ("p99",) if len(names) > 1 else ("p50", "p99")):
        seconds = [getattr(window, f"{name}_seconds") for window in point.windows]
        heights = [None if value is None else 1e3 * value for value in seconds]
        values += [value for value in heights if value is not None]
        _steps(axes, point.windows, heights, _color(point, names, canvas.PERCENTILE_LOOKS[name].color))
    canvas.scale(axes.yaxis, values)
    axes.set_ylabel("p99, ms" if len(names) > 1 else "latency, ms")


def _errors(axes: Any, windows: Sequence[Window], errors: dict[str, Look]) -> None:
    """Stacked; a single shape for each kind, or a page of many windows would be large."""
    edges = _edges(windows)
    bottom = [0.0] * len(edges)
    for name, look in errors.items():
        rates = [_times(window, name, errors) / window.seconds if window.seconds else 0.0 for window in windows]
        top = [low + rate for low, rate in zip(bottom, (rate for rate in rates for _ in range(2)), strict=True)]
        axes.fill_between(edges, bottom, top, color=look.color, linewidth=0)
        bottom = top
    for window in windows:
        if window.wrong:  # few among many errors would not be seen
            place = (window.start_seconds + window.seconds / 2, 0.97)
            axes.plot(*place, "X", color=canvas.RED, markersize=7, transform=axes.get_xaxis_transform())
    canvas.scale(axes.yaxis, [1.1 * value for value in bottom], log=False)
    axes.set_ylabel("errors/s")


def _times(window: Window, name: str, errors: dict[str, Look]) -> int:
    if name == _WRONG:
        return window.wrong
    if name == _OTHER:
        return sum(times for other, times in window.errors.items() if other not in errors)
    return window.errors.get(name, 0)


def _warm_up(axes: Any, windows: Sequence[Window]) -> None:
    for warm, group in itertools.groupby(windows, key=lambda window: not window.measured):
        stretch = list(group)
        if warm:
            axes.axvspan(stretch[0].start_seconds, stretch[-1].end_seconds, color=canvas.WARM_UP, zorder=0, linewidth=0)


def _loads(axes: Any, run: Run, *, narrow: bool) -> None:
    """Above the stretches of each load, where there are several loads and room for their names."""
    stretches = [(load, list(points)) for load, points in itertools.groupby(run.points, key=lambda point: point.load)]
    if not 1 < len(stretches) <= (9 if narrow else 24):
        return
    for load, points in stretches:
        windows = [window for point in points for window in point.windows]
        if windows:
            place = ((windows[0].start_seconds + windows[-1].end_seconds) / 2, 1.02)
            axes.annotate(
                canvas.tick(load.size), place, xycoords=axes.get_xaxis_transform(), ha="center", color=canvas.FAINT
            )
    unit = "callers" if run.points[0].load.mode == "closed" else "offered/s"
    axes.set_title(unit, fontsize=11, fontweight="normal", color=canvas.FAINT, pad=16)


def trials(run: Run) -> Plot | None:
    """Of a search: the bounded percentile at each rate, the bound, and what was kept."""
    search = run.search
    if search is None:
        return None
    bound, percentile = 1e3 * search.bound_seconds, numbers.percentile(search.percentile)
    field = dict(PERCENTILES).get(percentile, "")
    points = [
        (trial.rate, 1e3 * getattr(latency, field), trial.kept)
        for trial in search.trials
        if field and (latency := run.points[trial.point].latency) is not None
    ]
    if not points:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(bound, color=INK, linewidth=1.2, linestyle=(0, (5, 2.5)))
        place = (0.01, bound)
        axes.annotate(f"bound: {numbers.duration(search.bound_seconds)}", place, xycoords=axes.get_yaxis_transform(),
                      xytext=(0, 4), textcoords="offset points")  # fmt: skip
        axes.plot([p[0] for p in sorted(points)], [p[1] for p in sorted(points)], color=canvas.GREY, linewidth=1.4)
        for kept, look in _KEPT.items():
            some = [point for point in points if point[2] is kept]
            axes.plot([p[0] for p in some], [p[1] for p in some], look.mark, color=look.color, markersize=8)
        canvas.loads_axis(axes.xaxis, [rate for rate, _, _ in points])
        canvas.scale(axes.yaxis, [bound, *(y for _, y, _ in points)])
        axes.set(xlabel="calls offered per second", ylabel=f"{percentile}, ms")

    keys = (("kept", _KEPT[True]), ("not kept", _KEPT[False]))
    alt = f"The bound is {numbers.duration(search.bound_seconds)}; " + "; ".join(
        f"{rate:,.0f}/s: {numbers.number(y)} ms, {'kept' if kept else 'not kept'}" for rate, y, kept in points
    )
    share = f"{search.percentile:g} % of the calls that were due"
    caption = f"A rate is kept where {share} came back in time, and no queue grew; {percentile} is of successful ones."
    return canvas.plot("tried", "Rates tried", draw, 290, alt, caption, keys)


_KEPT = {True: Look(canvas.GREEN, "o"), False: Look(canvas.VERMILION, "X")}
