"""The tables of a report, in words: what each column holds and what is said of each target, load, trial and part.

It knows summaries; neither terminals nor HTML.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from layerwire_bench.report import numbers
from layerwire_bench.report.summary import PERCENTILES, PHASES, REST, Summary, loads, summaries, targets
from layerwire_bench.result import Load, Point, Run


@dataclass(frozen=True)
class Column:
    """A column: its head, and what it shows of a row's thing.

    Attributes:
        text: what stands in its cells.
        bad: whether that tells of something gone wrong.
        words: whether cells are text, not numbers.
        wide: whether it is for pages only.
    """

    name: str
    unit: str
    text: Callable[[Any], str]
    bad: Callable[[Any], bool] = lambda _row: False
    words: bool = False
    wide: bool = False


Columns: TypeAlias = Sequence[Column]


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


def _grid(title: str, columns: Columns, rows: Sequence[Any], hint: str = "") -> Grid:
    cells = (tuple(Cell(column.text(row), column.bad(row)) for column in columns) for row in rows)
    return Grid(title, tuple(columns), tuple(cells), hint)


def _latency(name: str, field: str, *, wide: bool = False) -> Column:
    return Column(name, "ms", lambda row: numbers.milliseconds(getattr(row.latency, field, None)), wide=wide)


def _phase(name: str) -> Column:
    return Column(name, "ms", lambda summary: numbers.milliseconds(summary.phases.get(name)))


def _count(name: str, unit: str, count: Callable[[Any], int], *, bad: bool = False, wide: bool = False) -> Column:
    """A number in full; one above 0 may be bad."""
    return Column(name, unit, lambda row: numbers.count(count(row)), lambda row: bad and count(row) > 0, wide=wide)


_TARGET = Column("target", "", lambda row: row.target, words=True)
_CALLERS = Column("callers", "", lambda row: numbers.whole(row.load.size))
_RATE = Column("offered", "per s", lambda row: numbers.whole(row.load.size))
_THROUGHPUT = Column("calls", "per s", lambda row: numbers.number(row.throughput))
_FAILED = _count("errors", "", lambda row: row.failures, bad=True)
_WRONG = _count("wrong", "", lambda row: row.wrong, bad=True)
_SHORT = tuple(_latency(name, field, wide=name == "p95") for name, field in PERCENTILES)  # with p95 where there is room
_ROWS = Column("rows", "a batch", lambda summary: numbers.number(summary.batch_rows))

_LATENCY: Columns = (
    _count("calls", "", lambda summary: summary.calls, wide=True),
    _THROUGHPUT,
    _latency("mean", "mean_seconds", wide=True),
    *_SHORT,
    _latency("max", "maximum_seconds", wide=True),
    _FAILED,
    _WRONG,
    Column("steady", "", lambda summary: "yes" if summary.steady else "no", lambda summary: not summary.steady),
)
_COST: Columns = (
    _latency("mean", "mean_seconds"),
    *(_phase(name) for name, _ in PHASES),
    Column("rest", "ms", lambda summary: numbers.milliseconds(summary.rest_seconds)),
    _ROWS,
    Column("client", "µs CPU", lambda summary: numbers.microseconds(summary.client_seconds_per_call)),
    Column("server", "µs CPU", lambda summary: numbers.microseconds(summary.server_seconds_per_call)),
)


def _most(summary: Summary, field: str) -> float | None:
    """Of what the client used at any of its points."""
    values = (getattr(point.client, field) for point in summary.points)
    return max((value for value in values if value is not None), default=None)


_CLIENT: Columns = (
    _count("client", "processes", lambda summary: summary.points[0].client.processes),
    Column(
        "busiest", "% of a core", lambda summary: numbers.percent(_most(summary, "busiest_cpu_ratio")),
        lambda summary: summary.bottleneck,
    ),
    Column("loop lag", "p99 ms", lambda summary: numbers.milliseconds(_most(summary, "lag_p99_seconds"))),
    Column("sent late", "p99 ms", lambda summary: numbers.milliseconds(_most(summary, "send_lag_p99_seconds"))),
    Column("machine", "% busy", lambda summary: numbers.percent(_most(summary, "machine_busy_ratio"))),
    _count("answers", "compared", lambda summary: summary.verified),
    _count("calls", "unfinished", lambda summary: sum(point.unfinished for point in summary.points)),
)  # fmt: skip


def _totals(summary: Summary, field: str) -> str:
    return numbers.counts(sum((Counter(getattr(point.server, field, {})) for point in summary.points), Counter[str]()))


_BATCHES: Columns = (
    Column("calls", "a batch", lambda summary: numbers.number(summary.batch_calls)),
    _ROWS,
    Column("batches closed because", "", lambda summary: _totals(summary, "batch_closed"), words=True),
    Column("turned away", "", lambda summary: _totals(summary, "rejected"), words=True),
)


def latency_grid(run: Run, *, wide: bool = False) -> Grid:
    """Throughput and latency of each target and load; `wide` for a page."""
    rounds = max((point.round for point in run.points), default=0)
    hint = f"Medians over {rounds} rounds." if rounds > 1 else ""
    columns = [column for column in _LATENCY if wide or not column.wide]
    return _of_summaries(run, "Throughput and latency at the client", columns, hint)


def cost_grid(run: Run) -> Grid:
    """Phases of a call on the server, batches, and processor time on both sides."""
    phases = any(summary.phases for summary in summaries(run))
    hint = f"Means per call. The rest is the client's mean less the server's phases: {REST}." if phases else ""
    return _of_summaries(_only(run, lambda point: point.latency is not None), "Where the time went", _COST, hint)


def client_grid(run: Run) -> Grid:
    """What the load tester used."""
    return _of_summaries(run, "The load tester itself", _CLIENT)


def batch_grid(run: Run) -> Grid:
    """How the server put calls together, and whom it turned away."""
    batches = _only(run, lambda point: point.server is not None and point.server.batch_calls is not None)
    return _of_summaries(batches, "Batches on the server", _BATCHES)


def _only(run: Run, condition: Callable[[Point], bool]) -> Run:
    return replace(run, points=tuple(point for point in run.points if condition(point)))


def _load_columns(all_loads: Sequence[Load]) -> list[Column]:
    """Their column, where there are several."""
    return [_CALLERS if all_loads[0].mode == "closed" else _RATE] if len(all_loads) > 1 else []


def load_title(all_loads: Sequence[Load]) -> str:
    """What a title says of them: the single one, or how calls of an open loop arrive."""
    if len(all_loads) == 1:
        return f", {all_loads[0]}"
    return f", {all_loads[0].mode} arrivals" if all_loads and all_loads[0].mode != "closed" else ""


def _of_summaries(run: Run, title: str, columns: Columns, hint: str = "") -> Grid:
    """Targets and loads are columns where there are several of them; columns that tell nothing are left out."""
    rows = summaries(run)
    all_loads = loads(rows)
    first = [_TARGET] if len(targets(run)) > 1 else []
    rows = tuple(sorted(rows, key=lambda row: all_loads.index(row.load)))  # stable: targets in their order
    telling = [
        column
        for column in (*first, *_load_columns(all_loads), *columns)
        if any(column.text(row) != numbers.NONE for row in rows)
    ]
    return _grid(title + load_title(all_loads), telling, rows, hint)


def ratio_grid(run: Run) -> Grid:
    """Of a comparison: each target against the first, by load."""
    if not run.ratios:
        return Grid("", (), ())
    all_loads = tuple(dict.fromkeys(ratio.load for ratio in run.ratios))
    columns = [_TARGET, *_load_columns(all_loads), *(_spread(field) for field in ("throughput", "p50", "p99"))]
    hint = f"Ratios of medians over {rounds_text(run)}; in brackets the least and the most of single rounds."
    return _grid(f"Against {run.ratios[0].baseline}{load_title(all_loads)}", columns, run.ratios, hint)


def _spread(field: str) -> Column:
    ends = (field, f"{field}_least", f"{field}_most")
    return Column(field, "", lambda ratio: numbers.spread(*(getattr(ratio, end) for end in ends)))


def rounds_text(run: Run) -> str:
    """How many rounds ratios are of."""
    counts = sorted({ratio.rounds for ratio in run.ratios})
    return f"{counts[0]} round" if counts == [1] else f"{' or '.join(map(str, counts))} rounds"


_NARROW = tuple(column for column in _SHORT if not column.wide)


def trial_grid(run: Run) -> Grid:
    """Of a search: what was tried, in order."""
    of_points = (replace(_THROUGHPUT, name="answered"), *_NARROW)
    columns = (
        Column("offered", "per s", lambda trial: numbers.number(trial.rate)),
        *(_through(column, lambda trial: run.points[trial.point]) for column in of_points),
        Column("kept", "", lambda trial: "yes" if trial.kept else "no", lambda trial: not trial.kept),
        Column("because", "", lambda trial: trial.reason or "", words=True),
    )
    return _grid("Rates tried, in order", columns, run.search.trials if run.search is not None else ())


def _through(column: Column, thing: Callable[[Any], Any]) -> Column:
    """The column of a row's thing."""
    return replace(column, text=lambda row: column.text(thing(row)), bad=lambda row: column.bad(thing(row)))


_PARTS: Columns = (
    Column("part", "", lambda part: part.name, words=True),
    _count("calls", "", lambda part: part.calls),
    _THROUGHPUT,
    *_NARROW,
    _count("errors", "", lambda part: sum(part.errors.values()), bad=True),
    _WRONG,
)


def part_grid(run: Run) -> Grid:
    """Of a mix: each entry, at the load with the most throughput."""
    best = max(run.points, key=lambda point: point.throughput, default=None)
    parts = best.parts if best is not None and len(best.parts) > 1 else ()
    load = f" at {best.load}" if best is not None else ""
    where = f", {best.target}" if best is not None and len(targets(run)) > 1 else ""
    return _grid(f"Parts of the mix{load}{where}", _PARTS, parts)
