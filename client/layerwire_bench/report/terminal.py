"""A run on a terminal: tables, then what to beware of, then the answer, which so stands last.

It knows rich and grids; nothing of how a figure comes about.
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

    def line(text: str, style: str = "") -> None:
        console.print(Text(plain(text), style=style), width=width)

    for table in _grids(run):
        if table.rows:
            line(table.title, "bold")  # a table's own folds at its width
            console.print(_table(table), width=width)
            if table.hint:
                line(table.hint, "dim")
            console.print()
    for text in verdict.notes(run):
        line(text, "yellow")
    for alarm in (verdict.errors(run), verdict.early_end(run)):
        if alarm is not None:
            line(alarm, _BAD)
    first, *more = verdict.sentences(run)
    line(first, "bold")
    for text in more:
        line(text)
    if (wrong := verdict.wrong(run)) is not None:
        alarm_text = Text(plain(wrong), style="bold white on red")
        console.print(Panel(alarm_text, title="WRONG ANSWERS", box=box.DOUBLE, style="white on red", width=width))


def _grids(run: Run) -> tuple[grid.Grid, ...]:
    main = (grid.trial_grid(run),) if run.search is not None else (grid.latency_grid(run), grid.ratio_grid(run))
    return (*main, grid.cost_grid(run), grid.part_grid(run))


def _table(source: grid.Grid) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for column in source.columns:
        head, justify = Text(f"{column.name}\n{column.unit}".strip()), "left" if column.words else "right"
        table.add_column(head, justify=justify, overflow="fold", no_wrap=not column.words, vertical="top")  # type: ignore[arg-type]
    for row in source.rows:
        table.add_row(*(Text(plain(cell.text), style=_BAD if cell.bad else "") for cell in row))
    return table
