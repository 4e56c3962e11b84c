"""`layerwire token new | list | revoke`: the file that `layerwire serve --tokens` reads.

It knows the file and the terminal; nothing of servers, which notice a change of the file within a second or two.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from layerwire_server.access.tokens import Scope, TokenFile, TokenFileError

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_FILE_COLUMNS = 200  # in a pipe, names aren't folded

_file = click.option(
    "--tokens",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    envvar="LAYERWIRE_TOKENS",
    show_envvar=True,
    help="The file, as for `layerwire serve`.",
)


class Lifetime(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer click only
    """A time such as 90d."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Click: the text's value."""
        match = re.fullmatch(r"([1-9]\d{0,5})([hdw])", str(value))
        if match is None:
            self.fail(f"must be hours, days or weeks such as 12h, 90d or 52w, got {value!r}", param, ctx)
        return timedelta(**{_UNITS[match[2]]: int(match[1])})


@contextmanager
def _one_sentence() -> Iterator[None]:
    try:
        yield
    except TokenFileError as error:
        raise click.ClickException(str(error)) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def token() -> None:
    """Make, list and revoke the tokens by which callers come in.

    The file holds names, scopes and hashes; a token itself is printed once, when it is made. Servers notice changes
    within two seconds. To replace a token, make a second of the same name, give it to those who call, and revoke the
    first by its id.
    """


@token.command()
@click.argument("name")
@_file
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["infer", "admin"]),
    multiple=True,
    default=("infer",),
    show_default=True,
    help="What it is for: calls, or changes of weights and programs too. May be given twice.",
)
@click.option(
    "--expires",
    "lifetime",
    type=Lifetime(),
    metavar="TIME",
    help="How long it is valid: 12h, 90d, 52w.  [default: for ever]",
)
def new(name: str, path: Path, scopes: Sequence[Scope], lifetime: timedelta | None) -> None:
    """Make a token for NAME, and print it: it alone on standard output, and never again."""
    with _one_sentence():
        secret = TokenFile(path).add(name, scopes, lifetime)
    click.echo(f"a token for {name}, scope {', '.join(scopes)}, is in {path} by its hash; keep what follows:", err=True)
    click.echo(secret)


@token.command("list")
@_file
def list_tokens(path: Path) -> None:
    """List the file's tokens: names, ids, scopes and times, not the tokens themselves."""
    with _one_sentence():
        tokens = TokenFile(path).read()
    now = datetime.now(UTC)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("name", "id", "scopes", "created", "expires"):
        table.add_column(column, overflow="fold")
    for each in sorted(tokens, key=lambda each: (each.name, each.creation_time)):
        expires = "never" if each.expires is None else f"{each.expires:%Y-%m-%d %H:%M}"
        is_over = "" if each.is_live(now) else " (over)"
        since = f"{each.creation_time:%Y-%m-%d %H:%M}"
        table.add_row(each.name, each.id, ", ".join(each.scopes), since, expires + is_over)
    Console(highlight=False, width=None if sys.stdout.isatty() else _FILE_COLUMNS).print(table)


@token.command()
@click.argument("name_or_id", metavar="NAME|ID")
@_file
def revoke(name_or_id: str, path: Path) -> None:
    """Take out all tokens of NAME, or the one token of an ID."""
    with _one_sentence():
        tokens = TokenFile(path).revoke(name_or_id)
    for each in tokens:
        click.echo(f"revoked {each.id} of {each.name}")
