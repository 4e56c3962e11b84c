"""The tables of a report, in words: what each column holds and what is said of each target, load, trial and part.

It knows summaries; neither terminals nor HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from layerwire_bench.report import numbers
from layerwire_bench.report.summary import PHASES, REST, Summary, loads, size, summaries, targets
from layerwire_bench.result import Latency, Load, Part, Run


@dataclass(frozen=True)
class Column:
    """A column's head. `words` is True where cells are text, not numbers."""

    name: str
    unit: str = ""
    words: bool = False


@dataclass(frozen=True)
class Cell:
    """What stands in a cell. `bad` is True where it tells of something gone wrong."""

    text: str
    bad: bool = False


@dataclass(frozen=True)
class Grid:
    """A table: each row as long as there are columns. `hint` says how to read it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    hint: str = ""


@dataclass(frozen=True)
class Field:
    """A column with what it shows of a row's thing. `wide` ones are for pages only."""

    column: Column
    cell: Callable[[Summary], Cell]
    wide: bool = False


Fields: TypeAlias = Sequence[Field]


def _number(name: str, unit: str, value: Callable[[Summary], str], *, wide: bool = False) -> Field:
    return Field(Column(name, unit), lambda summary: Cell(value(summary)), wide)


def _latency(name: str, field: str, *, wide: bool = False) -> Field:
    return _number(name, "ms", lambda summary: _milliseconds(summary.latency, field), wide=wide)


def _milliseconds(latency: Latency | None, field: str) -> str:
    return numbers.milliseconds(None if latency is None else getattr(latency, field))


def _phase(name: str) -> Field:
    return _number(name, "ms", lambda summary: numbers.milliseconds(summary.phases.get(name)))


def _verdict(summary: Summary) -> Cell:
    return Cell("yes") if summary.steady else Cell("no", bad=True)


_TARGET = Field(Column("target", words=True), lambda summary: Cell(summary.target))
_CALLERS = _number("callers", "", lambda summary: numbers.whole(summary.offered))
_RATE = _number("offered", "per s", lambda summary: numbers.whole(summary.offered))
_LATENCY: Fields = (
    _number("calls", "", lambda summary: numbers.count(summary.calls), wide=True),
    _number("calls", "per s", lambda summary: numbers.number(summary.throughput)),
    _latency("mean", "mean_seconds", wide=True),
    _latency("p50", "p50_seconds"),
    _latency("p90", "p90_seconds"),
    _latency("p95", "p95_seconds", wide=True),
    _latency("p99", "p99_seconds"),
    _latency("p99.9", "p999_seconds"),
    _latency("max", "maximum_seconds", wide=True),
    Field(Column("errors"), lambda summary: Cell(numbers.count(summary.failed), bad=summary.failed > 0)),
    Field(Column("wrong"), lambda summary: Cell(numbers.count(summary.wrong), bad=summary.wrong > 0)),
    Field(Column("steady"), _verdict),
)
_COST: Fields = (
    _latency("mean", "mean_seconds"),
    *(_phase(name) for name, _ in PHASES),
    _number("rest", "ms", lambda summary: numbers.milliseconds(summary.rest_seconds)),
    _number("rows", "a batch", lambda summary: numbers.number(summary.batch_rows)),
    _number("client", "µs CPU", lambda summary: numbers.microseconds(summary.client_seconds_per_call)),
    _number("server", "µs CPU", lambda summary: numbers.microseconds(summary.server_seconds_per_call)),
)


def _busiest(summary: Summary) -> Cell:
    ratio = max(point.client.busiest_cpu_ratio for point in summary.points)
    return Cell(numbers.percent(ratio), bad=summary.bottleneck)


def _most(summary: Summary, field: str) -> float | None:
    found = [value for point in summary.points if (value := getattr(point.client, field)) is not None]
    return max(found, default=None)


_CLIENT: Fields = (
    _number("client", "processes", lambda summary: numbers.count(summary.points[0].client.processes)),
    Field(Column("busiest", "% of a core"), _busiest),
    _number("loop lag", "p99 ms", lambda summary: numbers.milliseconds(_most(summary, "lag_p99_seconds"))),
    _number("sent late", "p99 ms", lambda summary: numbers.milliseconds(_most(summary, "send_lag_p99_seconds"))),
    _number("machine", "% busy", lambda summary: numbers.percent(_most(summary, "machine_busy_ratio"))),
    _number("answers", "compared", lambda summary: numbers.count(summary.verified)),
    _number("calls", "unfinished", lambda summary: numbers.count(sum(point.unfinished for point in summary.points))),
)


def latency_grid(run: Run, *, wide: bool = False) -> Grid:
    """Throughput and latency of each target and load; `wide` for a page."""
    title = "Throughput and latency at the client"
    rounds = max((point.round for point in run.points), default=0)
    hint = f"Medians over {rounds} rounds." if rounds > 1 else ""
    return _of_summaries(run, title, [field for field in _LATENCY if wide or not field.wide], hint)


def cost_grid(run: Run) -> Grid:
    """Phases of a call on the server, batches, and processor time on both sides."""
    phases = any(summary.phases for summary in summaries(run))
    hint = f"Means per call. The rest is the client's mean less the server's phases: {REST}." if phases else ""
    return _of_summaries(
        replace(run, points=tuple(point for point in run.points if point.latency)), "Where the time went", _COST, hint
    )


def client_grid(run: Run) -> Grid:
    """What the load tester used."""
    return _of_summaries(run, "The load tester itself", _CLIENT, "")


_BATCHES: Fields = (
    _number("calls", "a batch", lambda summary: numbers.number(summary.batch_calls)),
    _number("rows", "a batch", lambda summary: numbers.number(summary.batch_rows)),
    Field(Column("batches closed because", words=True), lambda summary: Cell(_counted(summary, "batch_closed"))),
    Field(Column("turned away", words=True), lambda summary: Cell(_counted(summary, "rejected"))),
)


def _counted(summary: Summary, field: str) -> str:
    total: Counter[str] = Counter()
    for point in summary.points:
        total.update(getattr(point.server, field, {}))
    return numbers.counts(total)


def batch_grid(run: Run) -> Grid:
    """How the server put calls together, and whom it turned away."""
    told = [point for point in run.points if point.server is not None and point.server.batch_calls is not None]
    turned_away = any(point.server is not None and point.server.rejected for point in told)
    fields = _BATCHES if turned_away else _BATCHES[:-1]
    return _of_summaries(replace(run, points=tuple(told)), "Batches on the server", fields, "")


def load_field(load: Load) -> Field:
    """The column of such loads."""
    return _CALLERS if load.mode == "closed" else _RATE


def load_title(found: Sequence[Load]) -> str:
    """What a title says of them: the single one, or how calls of an open loop arrive."""
    if len(found) == 1:
        return f", {found[0]}"
    return f", {found[0].mode} arrivals" if found and found[0].mode != "closed" else ""


def _of_summaries(run: Run, title: str, fields: Fields, hint: str) -> Grid:
    """Targets and loads are columns where there are several of them; columns that tell nothing are left out."""
    found = summaries(run)
    all_loads, all_targets = loads(found), targets(run)
    first = ([_TARGET] if len(all_targets) > 1 else []) + ([load_field(all_loads[0])] if len(all_loads) > 1 else [])
    title += load_title(all_loads)
    ordered = sorted(found, key=lambda summary: all_loads.index(summary.load))  # stable: targets in their order
    cells = [[field.cell(summary) for summary in ordered] for field in (*first, *fields)]
    told = [at for at, column in enumerate(cells) if any(cell.text != numbers.NONE for cell in column)]
    columns = tuple((*first, *fields)[at].column for at in told)
    return Grid(title, columns, tuple(zip(*(cells[at] for at in told), strict=True)), hint)


def ratio_grid(run: Run) -> Grid:
    """Of a comparison: each target against the first, by load."""
    if not run.ratios:
        return Grid("", (), ())
    found = tuple(dict.fromkeys(ratio.load for ratio in run.ratios))
    several = len(found) > 1
    load = (load_field(found[0]).column,) if several else ()
    rows = tuple(
        (
            Cell(ratio.target),
            *((Cell(numbers.whole(size(ratio.load))),) if several else ()),
            Cell(numbers.spread(ratio.throughput, ratio.throughput_least, ratio.throughput_most)),
            Cell(numbers.spread(ratio.p50, ratio.p50_least, ratio.p50_most)),
            Cell(numbers.spread(ratio.p99, ratio.p99_least, ratio.p99_most)),
        )
        for ratio in run.ratios
    )
    return Grid(
        f"Against {run.ratios[0].baseline}{load_title(found)}",
        (Column("target", words=True), *load, Column("throughput"), Column("p50"), Column("p99")),
        rows,
        f"Ratios of medians over {rounds_text(run)}; in brackets the least and the most of single rounds.",
    )


def rounds_text(run: Run) -> str:
    """How many rounds ratios are of."""
    found = sorted({ratio.rounds for ratio in run.ratios})
    return f"{found[0]} round" if found == [1] else f"{' or '.join(map(str, found))} rounds"


_OF_LATENCY = (("p50", "p50_seconds"), ("p90", "p90_seconds"), ("p99", "p99_seconds"), ("p99.9", "p999_seconds"))


def _heads(*texts: str) -> tuple[Column, ...]:
    return (
        *(Column(name, unit) for name, _, unit in (text.partition("|") for text in texts)),
        *(Column(name, "ms") for name, _ in _OF_LATENCY),
    )


def trial_grid(run: Run) -> Grid:
    """Of a search: what was tried, in order."""
    rows = []
    for trial in run.search.trials if run.search is not None else ():
        point = run.points[trial.point]
        texts = (numbers.number(trial.rate), numbers.number(point.throughput), *_figures(point.latency))
        kept = Cell("yes" if trial.kept else "no", bad=not trial.kept)
        rows.append((*(Cell(text) for text in texts), kept, Cell(trial.reason or "")))
    heads = (*_heads("offered|per s", "answered|per s"), Column("kept"), Column("because", words=True))
    return Grid("Rates tried, in order", heads, tuple(rows))


def part_grid(run: Run) -> Grid:
    """Of a mix: each entry, at the load with the most throughput."""
    best = max(run.points, key=lambda point: point.throughput, default=None)
    parts = best.parts if best is not None and len(best.parts) > 1 else ()
    load = f" at {best.load}" if best is not None else ""
    where = f", {best.target}" if best is not None and len(targets(run)) > 1 else ""
    heads = (Column("part", words=True), *_heads("calls", "calls|per s"), Column("errors"), Column("wrong"))
    return Grid(f"Parts of the mix{load}{where}", heads, tuple(_part(part) for part in parts))


def _part(part: Part) -> tuple[Cell, ...]:
    failed = sum(part.errors.values())
    texts = (part.name, numbers.count(part.calls), numbers.number(part.throughput), *_figures(part.latency))
    errors = Cell(numbers.count(failed), bad=failed > 0)
    return (*(Cell(text) for text in texts), errors, Cell(numbers.count(part.wrong), bad=part.wrong > 0))


def _figures(latency: Latency | None) -> tuple[str, ...]:
    return tuple(_milliseconds(latency, field) for _, field in _OF_LATENCY)
