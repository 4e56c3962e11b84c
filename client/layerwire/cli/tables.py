"""How commands show lists to people: tables of one style, sizes in units.

It knows rich; no command in particular.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


_FILE_COLUMNS = 200


def console() -> Console:
    """Where tables go: as wide as the terminal, or, in a file or a pipe, wide enough for whole names."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_COLUMNS)


def table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; the columns in `right` hold numbers."""
    from rich import box
    from rich.table import Table

    empty = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        empty.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return empty


def size(nbytes: int) -> str:
    """Bytes for people: "1.5 MiB"."""
    unit, factor = next(((unit, factor) for unit, factor in _UNITS if nbytes >= factor), ("bytes", 1))
    return f"{nbytes / factor:,.4g} {unit}"


def plain(text: str) -> str:
    """What others named, without what would steer the terminal: as Python spells unprintable characters."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def spec(dtype: str, shape: tuple[int, ...]) -> str:
    """A tensor without its data: "float32 [1, 3]"."""
    return f"{dtype} [{', '.join(map(str, shape))}]"
