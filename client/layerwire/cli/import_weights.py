"""`layerwire import`: a safetensors file's tensors get names on a server, or in a store's directory.

It knows the client's upload; directories are the server's, which adds what writes them by the entry point below.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from layerwire.cli import connection

GROUP, NAME = "layerwire.store", "import"


def _into_directory(directory: str, file: str, prefix: str, *, pinned: bool) -> list[str]:
    """Names of the tensors, now in the directory.

    Raises:
        click.ClickException: the server's package isn't installed, or the file isn't taken.
    """
    for point in entry_points(group=GROUP, name=NAME):
        try:
            put: Any = point.load()
        except ModuleNotFoundError:
            break
        try:
            return list(put(Path(directory), Path(file), prefix, pinned=pinned))
        except (OSError, ValueError, RuntimeError) as error:
            raise click.ClickException(str(error)) from None
    raise click.ClickException("import: --store needs the server; pip install 'layerwire[server]'")


def _over_the_wire(target: str, file: str, prefix: str, timeout: float, *, pinned: bool) -> list[str]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("upload", total=None)
        with connection.client(target, timeout) as client:
            return client.import_weights(
                file, prefix, pinned=pinned, progress=lambda there, of: bar.update(task, completed=there, total=of)
            )


@click.command()
@click.argument("targets", nargs=-1, metavar="[ADDRESS] FILE")
@click.option("--store", metavar="DIRECTORY", help="Write into a store's directory instead of asking a server.")
@click.option("--prefix", default="", metavar="TEXT", help="What names begin with: prefix + key.")
@click.option("--pinned", is_flag=True, help="The tensors stay on devices when room is short.")
@connection.timeout(60.0)
def command(targets: tuple[str, ...], store: str | None, prefix: str, pinned: bool, timeout: float) -> None:
    """Give the tensors of a safetensors file names.

    They are named on a server, or, with --store, in a store's directory, which needs no server running. Over the wire
    only what the server hasn't got is sent; --timeout is then the longest that a piece may take.
    """
    if len(targets) != (1 if store else 2):
        raise click.UsageError("must be ADDRESS and FILE, or --store DIRECTORY and FILE")
    file = targets[-1]
    if not Path(file).is_file():
        raise click.BadParameter(f"there is no file {file}", param_hint="FILE")
    if store:
        names = _into_directory(store, file, prefix, pinned=pinned)
    else:
        names = _over_the_wire(targets[0], file, prefix, timeout, pinned=pinned)
    for name in names:
        click.echo(name)
