"""`layerwire delete ADDRESS NAME...`: programs, versions of them, or named weights are forgotten.

It knows the client's methods; nothing of what is deleted.
"""

from __future__ import annotations

import click

from layerwire.cli import connection


@click.command()
@connection.address
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--version", type=int, metavar="NUMBER", help="Only this version of a program.")
@click.option("--weights", is_flag=True, help="The names are those of weights; all are forgotten or none.")
@connection.timeout(30.0)
def command(address: str, names: tuple[str, ...], version: int | None, weights: bool, timeout: float) -> None:
    """Forget programs or weights on a server. Calls that run end well."""
    if version is not None and (weights or len(names) > 1):
        raise click.UsageError("--version goes with the name of one program")
    with connection.client(address, timeout) as client:
        if weights:
            client.delete_weights(*names)
        else:
            for name in names:
                client.delete_program(name, version)
