"""`layerwire weights ADDRESS`: the named weights that a server keeps.

It knows the client's list; no weights in particular.
"""

from __future__ import annotations

import json

import click

from layerwire.cli import connection


@click.command()
@connection.address
@click.option("--prefix", default="", metavar="TEXT", help="Only names that start so.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@connection.timeout(30.0)
def command(address: str, prefix: str, json_: bool, timeout: float) -> None:
    """List the named weights of a server."""
    with connection.client(address, timeout) as client:
        weights = client.weights(prefix)
    if json_:
        click.echo(json.dumps([one._asdict() for one in weights], indent=2))
        return
    from rich.markup import escape

    from layerwire.cli.tables import console, plain, spec, table

    rows = table("Weights", "name", "tensor", "file", "key", "pinned")
    for one in weights:
        tensor = escape(spec(one.dtype, one.shape)) if one.dtype else "[red]its file can't be read[/]"
        rows.add_row(one.name, tensor, one.digest[:16], escape(plain(one.key)), "yes" if one.pinned else "")
    console().print(rows if weights else "no weights")
