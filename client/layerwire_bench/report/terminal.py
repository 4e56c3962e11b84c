"""A run on a terminal: tables, then what to beware of, then the answer, which so stands last.

It knows rich and grids; nothing of how a figure is found.
"""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from layerwire.cli.tables import plain
from layerwire_bench.report import grid, verdict
from layerwire_bench.result import Run

_WIDEST_COLUMNS = 100
_BAD = "bold red"


def show(run: Run, console: Console) -> None:
    """Prints it, 100 columns wide at most. Colour says nothing that the words don't."""
    width = min(console.width, _WIDEST_COLUMNS)
    for found in _grids(run):
        if found.rows:
            console.print(Text(plain(found.title), style="bold"), width=width)  # a table's own folds at its width
            console.print(_table(found), width=width)
            if found.hint:
                console.print(Text(plain(found.hint), style="dim"), width=width)
            console.print()
    for text in verdict.notes(run):
        console.print(Text(plain(text), style="yellow"), width=width)
    if (errors := verdict.failed(run)) is not None:
        console.print(Text(plain(errors), style=_BAD), width=width)
    if (early := verdict.ended_early(run)) is not None:
        console.print(Text(plain(early), style=_BAD), width=width)
    first, *more = verdict.sentences(run)
    console.print(Text(plain(first), style="bold"), width=width)
    for text in more:
        console.print(Text(plain(text)), width=width)
    if (wrong := verdict.wrong(run)) is not None:
        alarm = Text(plain(wrong), style="bold white on red")
        console.print(Panel(alarm, title="WRONG ANSWERS", box=box.DOUBLE, style="white on red", width=width))


def _grids(run: Run) -> tuple[grid.Grid, ...]:
    main = (grid.trial_grid(run),) if run.search is not None else (grid.latency_grid(run), grid.ratio_grid(run))
    return (*main, grid.cost_grid(run), grid.part_grid(run))


def _table(found: grid.Grid) -> Table:
    made = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        collapse_padding=True,
    )
    for column in found.columns:
        head = Text(f"{column.name}\n{column.unit}".strip())
        made.add_column(
            head, justify="left" if column.words else "right", overflow="fold", no_wrap=not column.words, vertical="top"
        )
    for row in found.rows:
        made.add_row(*(Text(plain(cell.text), style=_BAD if cell.bad else "") for cell in row))
    return made
