"""Figures as SVG that stands within a page: its size, colours and type, and what is taken off what matplotlib writes.

It knows matplotlib and SVG; nothing of runs.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from xml.etree import ElementTree as ET

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from layerwire.cli.tables import plain

Draw: TypeAlias = Callable[[Figure], None]

# A unit of a figure is a CSS pixel where the figure is shown that wide. On a phone, 328 of 360 pixels are left for it,
# so that type of 11 units is 9.5 pixels high; on a wide screen it is not shown wider than 480 pixels. Wide
# ones are for wide screens and paper, where 11 units are 7 points.
NARROW, WIDE = 380, 800
_UNITS_PER_INCH = 72
INK, FAINT, GRID, WARM_UP = "#1b2330", "#5b6573", "#dfe3e8", "#f1f3f5"

# Okabe and Ito's colours, which readers who don't see all colours can tell apart; marks and dashes tell as well.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
RED, GREY = "#b3001b", "#b9c0c8"


@dataclass(frozen=True)
class Look:
    """How a series is drawn. `mark` is one of matplotlib's markers that legends have too, "" for none."""

    color: str
    mark: str = ""
    dash: str = ""
    fill: bool = False
    hollow: bool = False


SERIES = tuple(map(Look, (BLUE, VERMILION, GREEN, PURPLE, INK, ORANGE, SKY), "os^DvPX"))
PERCENTILE_LOOKS = {
    "p50": Look(GREEN, "o"), "p90": Look(SKY, "^"), "p95": Look(ORANGE, "D"), "p99": Look(BLUE, "s"),
    "p99.9": Look(VERMILION, "v"),
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """An entry of a legend, which stands beside the figure as text of the page."""

    look: Look
    text: str


@dataclass(frozen=True)
class Plot:
    """A figure for a page: SVG elements without names of namespaces, to be written into HTML as they are.

    Attributes:
        name: unique on its page; ids within the SVG start with it.
        caption: how to read it.
        wide: for wide screens and paper, where `svg` would be too narrow; None where it wouldn't.
    """

    name: str
    title: str
    caption: str
    keys: tuple[Key, ...]
    svg: str
    wide: str | None = None


_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read, searched and is small
    "svg.hashsalt": "layerwire",  # the same run makes the same page
    "text.parse_math": False,  # a name may have dollar signs
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    **dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 11),
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "text.color": INK,
    **dict.fromkeys(("axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), FAINT),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.linewidth", "grid.linewidth", "hatch.linewidth"), 0.8),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "grid.color": GRID,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.0,
    **dict.fromkeys(("figure.constrained_layout.h_pad", "figure.constrained_layout.w_pad"), 0.06),
}


def plot(
    name: str, title: str, draw: Draw, height: float, alt: str, caption: str = "",
    keys: Iterable[tuple[str, Look]] = (), wide_height: float | None = None,
) -> Plot:  # fmt: skip
    """A drawn figure.

    Args:
        name: unique on its page.
        title: what it is.
        draw: adds axes to an empty figure.
        height: in units.
        alt: what is to be seen, for those who don't see it.
        caption: how to read it.
        keys: its legend, texts and looks.
        wide_height: of a second one for wide screens; None for none.
    """
    wide = None if wide_height is None else _svg(f"{name}-wide", title, alt, wide_height, draw, WIDE)
    legend = tuple(Key(look, text) for text, look in keys)
    return Plot(name, title, caption, legend, _svg(name, title, alt, height, draw, NARROW), wide)


def _svg(name: str, title: str, alt: str, height: float, draw: Draw, width: float) -> str:
    """A drawn figure as an SVG element."""
    with _style():
        figure = Figure(figsize=(width / _UNITS_PER_INCH, height / _UNITS_PER_INCH), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _for_a_page(text.getvalue(), name, plain(title), plain(alt))


@contextmanager
def _style() -> Iterator[None]:
    with rc_context(_STYLE), warnings.catch_warnings():
        # The type that measures has no such character; the one that the page is shown with may.
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        yield


_NAMESPACE = re.compile(r"\{[^}]*\}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"font: (?:(\w+) )?([\d.]+px) [^;]+")
_NOT_SHOWN = {"metadata", "style"}  # the page has the one rule of that style
_NUMBER = re.compile(r"(\d+\.\d\d)\d+")


def _for_a_page(text: str, name: str, title: str, alt: str) -> str:
    """Without prolog, namespaces, metadata and needless ids; those in use are unique; with words for the blind."""
    root = ET.fromstring(text)  # noqa: S314 - matplotlib wrote it
    ids = set(_REFERENCE.findall(text)) | set(re.findall(r'href="#([^"]+)"', text))
    for parent in list(root.iter()):
        for child in list(parent):
            if _NAMESPACE.sub("", child.tag) in _NOT_SHOWN:
                parent.remove(child)
    for element in root.iter():
        element.tag = _NAMESPACE.sub("", element.tag)
        attributes = {_NAMESPACE.sub("", key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update(_attributes(attributes, name, ids))
    for tag, words in (("desc", alt), ("title", title)):
        element = ET.Element(tag, {"id": f"{name}-{tag}"})
        element.text = words
        root.insert(0, element)
    _, _, width, height = root.attrib["viewBox"].split()
    labels = f"{name}-title {name}-desc"
    root.attrib = {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-labelledby": labels, "id": name}
    return ET.tostring(root, encoding="unicode")


def _attributes(attributes: dict[str, str], name: str, ids: set[str]) -> dict[str, str]:
    """Those that a page needs; `ids` are those that something refers to."""
    needs = {}
    for key, value in attributes.items():
        if key == "id":
            if value not in ids:
                continue
            value = f"{name}-{value}"  # noqa: PLW2901
        elif key == "href":
            value = f"#{name}-{value[1:]}"  # noqa: PLW2901
        else:
            value = _REFERENCE.sub(rf"url(#{name}-\1)", _FONT.sub(_font, value))  # noqa: PLW2901
        needs[key] = _NUMBER.sub(r"\1", value) if key in {"d", "x", "y", "transform"} else value
    return needs


def _font(match: re.Match[str]) -> str:
    """Size and weight; the family is the page's."""
    weight, size = match.groups()
    return f"font-size: {size}" + (f"; font-weight: {weight}" if weight else "")


def line(axes: Any, xs: Sequence[float], ys: Sequence[float], look: Look) -> None:
    """A series in its look."""
    axes.plot(
        xs, ys, color=look.color, marker=look.mark or None,
        linestyle=(0, tuple(float(part) for part in look.dash.split())) if look.dash else "-",
        markerfacecolor="white" if look.hollow else look.color, markeredgecolor=look.color,
        markeredgewidth=1.6 if look.hollow else 0.8,
    )  # fmt: skip


def label(axes: Any, text: str, place: tuple[float, float], offset: tuple[float, float], **style: Any) -> None:
    """Text beside a point, so many units from it."""
    axes.annotate(text, place, xytext=offset, textcoords="offset points", fontsize=10.5, **style)


def rows_axis(axes: Any, rows: Sequence[str]) -> None:
    """Rows from the top down, with these names beside them; none beside a single one."""
    axes.set_yticks(range(len(rows)) if len(rows) > 1 else [], rows if len(rows) > 1 else [])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def scale(axis: Any, values: Sequence[float], *, log: bool | None = None) -> None:
    """Logarithmic where the largest is at least eight times the least, else from 0; in either case in plain numbers."""
    positive = [value for value in values if value > 0]
    least, most = min(positive, default=1.0), max(positive, default=1.0)
    log = most >= 8 * least if log is None else log
    axis.axes.set(**{f"{axis.axis_name}scale": "log" if log else "linear"})
    limits = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim
    if log:
        limits(least / 1.25, most * 1.35)
        axis.set_major_locator(FixedLocator(_decades(least / 1.25, most * 1.35)))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        limits(0, most * 1.12)
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def _decades(least: float, most: float) -> list[float]:
    """1, 2, 5, 10, ...; fewer of them where there are more than seven."""
    powers = [10.0**power for power in range(-9, 10)]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * power for power, step in itertools.product(powers, steps) if least <= step * power <= most]
        if len(ticks) <= 7:
            break
    return ticks


def tick(value: float) -> str:
    """As short as can be: "0.5", "20", "8k", "1.5M"."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"


def loads_axis(axis: Any, values: Sequence[float]) -> None:
    """Loads as ticks where they are far enough apart to be read."""
    ticks = sorted(set(values))
    log = ticks[-1] >= 3 * ticks[0]
    scale(axis, ticks, log=log)
    places = [math.log(value) if log else value for value in ticks]
    room = 0.08 * (places[-1] - (places[0] if log else 0.0))
    if all(after - before >= room for before, after in itertools.pairwise(places)):
        axis.set_major_locator(FixedLocator(ticks))


def short(text: str, length: int = 34) -> str:
    """A name for a figure: printable, its middle left out where it is long."""
    clean = plain(text)
    if len(clean) <= length:
        return clean
    half = (length - 1) // 2
    return f"{clean[:half]}…{clean[-half:]}"
