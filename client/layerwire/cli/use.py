"""`layerwire use ADDRESS NAME VERSION`: a program's name moves to another of its versions.

It knows the client's method; no program in particular.
"""

from __future__ import annotations

import click

from layerwire.cli import connection


@click.command()
@connection.address
@click.argument("name")
@click.argument("version", type=int)
@connection.timeout(60.0)
def command(address: str, name: str, version: int, timeout: float) -> None:
    """Move a program's name to another of its versions.

    Calls that give no version get this one from then on.
    """
    with connection.client(address, timeout) as client:
        client.set_default_version(name, version)
    click.echo(f"{name}: version {version}")
