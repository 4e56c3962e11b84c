"""A growth's curves as a picture: throughput above, latency below, both axes in powers.

It knows matplotlib and curves; nothing of how they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from layerwire_bench.report.plots.canvas import FAINT, GRID, INK, RED, SERIES
from tools.growth.curve import Growth, Point


def draw(growth: Growth, points: Sequence[Point], marks: bool, file: Path) -> None:
    """Writes the picture; `marks` says whether there is a cliff, which its title then says."""
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(growth.title + (" (a cliff)" if marks else ""), color=RED if marks else INK, fontsize=11)
    top, bottom = figure.subplots(2, 1, sharex=True)
    sizes = [point.size for point in points]
    series = ((top, [point.throughput for point in points], growth.unit),
              (bottom, [point.p50_seconds * 1e3 for point in points], "p50, ms"))  # fmt: skip
    for axes, values, label in series:
        look = SERIES[0]
        axes.plot(sizes, values, color=look.color, marker=look.mark, linewidth=2)
        axes.set_xscale("log", base=2 if growth.sizes[-1] / growth.sizes[0] < 1e5 else 10)
        axes.set_yscale("log")
        axes.set_ylabel(label, color=FAINT)
        axes.grid(color=GRID, which="both")
        axes.spines[["top", "right"]].set_visible(False)
    bottom.set_xticks(sizes, [_size(size) for size in sizes], rotation=30)
    bottom.minorticks_off()
    bottom.set_xlabel(growth.axis, color=FAINT)
    figure.savefig(file, dpi=110)


def _size(size: float) -> str:
    for factor, unit in ((1 << 20, "Mi"), (1 << 10, "Ki")):
        if size >= factor and size % factor == 0:
            return f"{size / factor:g} {unit}"
    return f"{size:,.0f}"
