"""Which plots a run has, in the order in which a page shows them.

It knows runs and the plots there are; nothing of how one is drawn.
"""

from __future__ import annotations

from layerwire_bench.report.grid import rounds_text
from layerwire_bench.report.plots import curves, rows, timeline
from layerwire_bench.report.plots.canvas import Plot
from layerwire_bench.report.summary import summaries
from layerwire_bench.result import Run


def plots(run: Run) -> tuple[Plot, ...]:
    """Those that the run has figures for."""
    found = summaries(run)
    best = max(run.points, key=lambda point: point.throughput, default=None)
    ratios = rows.ratios(run.ratios, rounds_text(run), curves.grouped(found)) if run.ratios else None
    percentiles = curves.percentiles(found)
    candidates = (
        timeline.tried(run),
        rows.throughputs(found),
        rows.latencies(found),
        None if run.search is not None else curves.throughput_latency(found),
        percentiles if ratios is None else ratios,
        rows.phases(found),
        rows.phases(found, shares=True),
        None if ratios is None else percentiles,
        timeline.timeline(run),
        curves.batches(found),
        curves.processor(found),
        None if best is None else rows.parts(best.parts, best.load),
    )
    return tuple(plot for plot in candidates if plot is not None)
