"""A run as one page of HTML that needs nothing else: no script, no reference to anywhere.

It knows which sections and plots a page has; how they look is in page.html and page.css.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from layerwire.cli.tables import plain, size
from layerwire_bench.report import grid, numbers, verdict
from layerwire_bench.report.plots import curves, rows, timeline
from layerwire_bench.report.plots.canvas import Plot
from layerwire_bench.report.summary import summaries, targets
from layerwire_bench.result import Run


def to_html(run: Run) -> str:
    """The page, to be kept as UTF-8."""
    environment = Environment(
        loader=PackageLoader("layerwire_bench", "report"), autoescape=True, undefined=StrictUndefined,
        finalize=_printable, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["tied"] = _with_ties
    return environment.get_template("page.html").render(
        run=run,
        title=verdict.title(run),
        targets=targets(run),
        when=_when(run),
        elapsed=numbers.elapsed_text(run.seconds),
        tiles=_tiles(run),
        answer=verdict.sentences(run),
        alarms=[text for text in (verdict.errors(run), verdict.early_end(run)) if text is not None],
        wrong=verdict.wrong(run),
        notes=verdict.notes(run),
        plots=plots(run),
        grids=[table for table in _grids(run) if table.rows],
        facts=_facts(run),
    )


def plots(run: Run) -> tuple[Plot, ...]:
    """Those that the run has figures for, in the order in which a page shows them."""
    everything = summaries(run)
    best = max(run.points, key=lambda point: point.throughput, default=None)
    ratios = rows.ratios(run.ratios, grid.rounds_text(run), curves.by_target(everything))
    percentiles = curves.percentiles(everything)
    candidates = (
        timeline.trials(run),
        rows.throughputs(everything),
        rows.latencies(everything),
        None if run.search is not None else curves.throughput_latency(everything),
        percentiles if ratios is None else ratios,
        rows.phases(everything),
        rows.phases(everything, shares=True),
        None if ratios is None else percentiles,
        timeline.timeline(run),
        curves.batches(everything),
        curves.processor(everything),
        None if best is None else rows.parts(best.parts, best.load),
    )
    return tuple(plot for plot in candidates if plot is not None)


def _printable(value: Any) -> Any:
    """Names from elsewhere could turn the direction of the text around them, or have no form in UTF-8."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


_TIES = re.compile(r"(?:(?<=p50)|(?<=p9\d)|(?<=p99\.9)|(?<=\d)) (?=[\d–]|µs|ms|s\b|%|calls)")  # noqa: RUF001


def _with_ties(text: str) -> Markup:
    """A sentence that isn't broken between a number and its unit, or a percentile and its number."""
    return Markup(_TIES.sub("&nbsp;", str(escape(plain(text)))))  # noqa: S704 - escaped


def _when(run: Run) -> str:
    try:
        return f"{datetime.fromisoformat(run.started):%d %B %Y, %H:%M %Z}".strip()
    except ValueError:
        return run.started


@dataclass(frozen=True)
class _Tile:
    value: str
    unit: str
    text: str
    bad: bool = False


def _tiles(run: Run) -> list[_Tile]:
    """The four numbers that one looks for first."""
    best = verdict.best(run)
    failures, calls = run.failures, run.failures + run.calls
    share = numbers.number(100 * failures / calls) if failures else "0"
    tiles = [_Tile(share, "%", f"{failures:,} of {calls:,} calls failed", failures > 0)]
    if run.verified or run.wrong:
        what = f"wrong of {run.verified:,} answers compared" if run.verified else "wrong answers"
        tiles.append(_Tile(f"{run.wrong:,}", "", what, run.wrong > 0))
    else:
        tiles.append(_Tile(numbers.NONE, "", "answers weren't compared"))
    if best is None or best.latency is None:
        return tiles
    value, _, unit = numbers.duration(best.latency.p99_seconds).partition(" ")
    p50 = numbers.duration(best.latency.p50_seconds)
    rate = _Tile(numbers.number(best.throughput), "calls/s", f"{best.target}, {best.load}")
    return [rate, _Tile(value, unit, f"p99 there; p50 {p50}"), *tiles]


def _grids(run: Run) -> tuple[grid.Grid, ...]:
    others = (grid.ratio_grid, grid.cost_grid, grid.client_grid, grid.batch_grid, grid.part_grid)
    return (grid.trial_grid(run), grid.latency_grid(run, wide=True), *(make(run) for make in others))


def _facts(run: Run) -> list[tuple[str, Iterable[tuple[str, str]]]]:
    """How to do it again, and where it was done: names and values under their title."""
    machine = run.machine
    memory = (("memory", size(machine.memory_bytes)),) if machine.memory_bytes is not None else ()
    sources = dict.fromkeys(
        point.server.source for summary in summaries(run) for point in summary.points if point.server is not None
    )
    client = (
        ("host", machine.host),
        ("processor", f"{machine.cpu}, {machine.cores} core{'' if machine.cores == 1 else 's'}"),
        *memory,
        ("system", machine.system),
        *machine.versions.items(),
    )
    test = (
        ("answers compared", run.verify),
        *_several("workload", run.workload),
        *_several("server's phases from", sources),
    )
    servers = [(f"Server: {server.target}", server.facts.items()) for server in run.servers]
    return [("Test", test), ("Load tester's machine", client), *servers]


def _several(name: str, values: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name if at == 0 else "", value) for at, value in enumerate(values))
