"""The dashboard's panels as matplotlib draws them: places, titles, units, colours and thresholds of its JSON.

It knows that JSON and series of points; nothing of where they come from. It draws what this dashboard uses, not all
that Grafana can.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, MultipleLocator

COLUMNS = 24
_WIDTH_INCHES, _ROW_INCHES, _HEAD_INCHES = 16.0, 0.42, 1.2
_MARGINS_INCHES = {"stat": (0.08, 0.08, 0.08, 0.08), "timeseries": (0.75, 0.72, 0.15, 0.4)}  # left, bottom, right, top
LABEL = "Drawn with matplotlib from Prometheus data; not a Grafana screenshot."
Lines = dict[str, list[tuple[float, float]]]  # series by name; times in seconds, from the left edge

_THRESHOLDS = {"green": "#2e9e55", "orange": "#e8830c", "red": "#d4283c", "blue": "#2f6fd0", "transparent": "none"}
_PALETTE = ["#3b7dd8", "#37a169", "#e0a800", "#8e5bc5", "#d9652b", "#2aa7b8", "#c2518f", "#7d8899"]
_DARK = {"#5794F2": "#3b7dd8", "#73BF69": "#37a169", "#F2CC0C": "#e0b400", "#FF9830": "#ee8a1d", "#FF7383": "#f0687a"}
_DARK |= {"#B877D9": "#9b5fc0", "#37B7C3": "#2aa7b8"}  # Grafana's colours are for its dark ground


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs" if value else "0 s"


def _count(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


UNITS: dict[str, Callable[[float], str]] = {
    "s": _seconds,
    "cps": lambda value: f"{_count(value)}/s",
    "percentunit": lambda value: f"{value * 100:.3g}%",
    "bytes": lambda value: f"{value / 2**20:.4g} MiB",
    "short": _count,
    "none": _count,
}


def draw(dashboard: dict[str, Any], data: dict[int, Lines], chapters: list[float], title: str, path: Path) -> None:
    """Writes the picture.

    Args:
        dashboard: as in its file.
        data: lines of each panel, by its id.
        chapters: seconds at which something else began, the first being 0, the last the end.
        title: what was going on.
        path: where to; the ending tells the format.
    """
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    height = _ROW_INCHES * rows + _HEAD_INCHES
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=100, facecolor="#f4f5f7")
    FigureCanvasAgg(figure)
    top = 1 - 0.32 / height
    figure.text(0.01, top, dashboard["title"], fontsize=18, fontweight="bold", va="center", color="#1f2430")
    figure.text(0.99, top, LABEL, fontsize=11.5, va="center", ha="right", color="#b3261e", fontweight="bold")
    figure.text(0.01, 1 - 0.85 / height, title, fontsize=11, va="center", color="#4a5160", linespacing=1.5)
    for panel in dashboard["panels"]:
        axes = figure.add_axes(_place(panel, height))
        _KINDS[panel["type"]](axes, panel, data[panel["id"]], chapters)
    figure.savefig(path)


def _place(panel: dict[str, Any], height: float) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a panel's axes, in parts of the figure; margins are for ticks and legends."""
    at, cell = panel["gridPos"], _WIDTH_INCHES / COLUMNS
    left, bottom, right, top = _MARGINS_INCHES[panel["type"]]
    x, y = at["x"] * cell, height - _HEAD_INCHES - (at["y"] + at["h"]) * _ROW_INCHES
    wide, high = at["w"] * cell - left - right, at["h"] * _ROW_INCHES - bottom - top
    return (x + left) / _WIDTH_INCHES, (y + bottom) / height, wide / _WIDTH_INCHES, high / height


def _stat(axes: Axes, panel: dict[str, Any], lines: Lines, chapters: list[float]) -> None:
    """A tile in the colour of its last value's threshold."""
    defaults, shows_names = panel["fieldConfig"]["defaults"], panel["options"]["textMode"] == "name"
    last = {name: points[-1][1] for name, points in lines.items() if points and points[-1][0] >= chapters[-1] - 2}
    value = max(last.values(), default=0.0)
    axes.set_facecolor(_threshold(defaults, value))
    axes.set(xticks=[], yticks=[])
    text = "\n".join(sorted(last, key=last.__getitem__)) if shows_names else UNITS[defaults["unit"]](value)
    size = 20 if not shows_names else (20 if len(last) < 2 else 13)
    axes.text(0.5, 0.45, text, transform=axes.transAxes, ha="center", va="center", fontsize=size, color="white",
              fontweight="bold", linespacing=1.3)  # fmt: skip
    axes.text(0.03, 0.95, panel["title"], transform=axes.transAxes, ha="left", va="top", fontsize=10, color="white")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _timeseries(axes: Axes, panel: dict[str, Any], lines: Lines, chapters: list[float]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    if custom["stacking"]["mode"] == "normal":
        _stack(axes, panel, lines)
    else:
        _lines(axes, panel, lines, custom)
    axes.set_xlim(0, chapters[-1])
    axes.set_ylim(0, max(axes.get_ylim()[1], custom.get("axisSoftMax", 0) * 1.08) or 1)
    if custom["thresholdsStyle"]["mode"] != "off":
        for step in defaults["thresholds"]["steps"][1:]:
            if step["value"] <= axes.get_ylim()[1]:
                axes.axhline(step["value"], color=_THRESHOLDS[step["color"]], linewidth=1, linestyle="--")
    axes.set_title(panel["title"], fontsize=10.5, loc="left", color="#1f2430", fontweight="bold")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: UNITS[defaults["unit"]](value)))
    axes.yaxis.set_major_locator(_ticks(axes, defaults))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} s"))
    axes.tick_params(labelsize=8.5, colors="#4a5160", length=0)
    axes.grid(visible=True, color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    for chapter in chapters[1:-1]:
        axes.axvline(chapter, color="#9aa1ad", linewidth=0.9, linestyle=":")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.46, -0.07), ncols=4, frameon=False, columnspacing=1.2,
                handlelength=1.2, labelcolor="#1f2430")  # fmt: skip


def _ticks(axes: Axes, defaults: dict[str, Any]) -> Locator:
    if defaults["unit"] == "bytes":
        return MultipleLocator(2.0 ** math.floor(math.log2(axes.get_ylim()[1] / 3)))
    return MaxNLocator(5, integer=defaults.get("decimals") == 0)


def _stack(axes: Axes, panel: dict[str, Any], lines: Lines) -> None:
    moments = sorted({moment for points in lines.values() for moment, _ in points})
    values = [[dict(points).get(moment, 0.0) for moment in moments] for points in lines.values()]
    colours = [_colour(panel, name, index) for index, name in enumerate(lines)]
    axes.stackplot(moments, values, labels=list(lines), colors=colours, alpha=0.85, linewidth=0)


def _lines(axes: Axes, panel: dict[str, Any], lines: Lines, custom: dict[str, Any]) -> None:
    for index, (name, points) in enumerate(lines.items()):
        looks = {**custom, **_override(panel, name)}
        moments, values = _with_gaps(points)
        colour, has_dashes = _colour(panel, name, index), "custom.lineStyle" in looks
        step = "post" if custom["lineInterpolation"] == "stepAfter" else "default"
        axes.plot(moments, values, color=colour, label=name, drawstyle=f"steps-{step}" if step == "post" else step,
                  linewidth=looks.get("custom.lineWidth", looks["lineWidth"]) + 0.6,
                  linestyle="--" if has_dashes else "-")  # fmt: skip
        opacity = looks.get("custom.fillOpacity", looks["fillOpacity"]) / 100
        axes.fill_between(moments, values, color=colour, alpha=opacity, linewidth=0,
                          step="post" if step == "post" else None)  # fmt: skip


def _with_gaps(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Times and values, with NaN where more than 2.5 s passed without a point."""
    moments: list[float] = []
    values: list[float] = []
    for moment, value in points:
        if moments and moment - moments[-1] > 2.5:
            moments.append(moments[-1] + 1)
            values.append(math.nan)
        moments.append(moment)
        values.append(value)
    return moments, values


def _override(panel: dict[str, Any], name: str) -> dict[str, Any]:
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name:
            return {prop["id"]: prop["value"] for prop in override["properties"]}
    return {}


def _colour(panel: dict[str, Any], name: str, index: int) -> str:
    """The colour of an override, or the one that its operator has in every panel, or the palette's next."""
    override = _override(panel, name).get("color")
    if override:
        return _DARK.get(override["fixedColor"], str(override["fixedColor"]))
    operator = name.removeprefix("p99 ")
    return _PALETTE[_OPERATORS.index(operator) if operator in _OPERATORS else index % len(_PALETTE)]


_OPERATORS = ["relu", "linear", "max_pool2d", "conv2d"]


def _threshold(defaults: dict[str, Any], value: float) -> str:
    steps = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    return _THRESHOLDS[steps[-1]["color"]]


_Kind = Callable[[Axes, dict[str, Any], Lines, list[float]], None]
_KINDS: dict[str, _Kind] = {"stat": _stat, "timeseries": _timeseries}
