"""`layerwire programs ADDRESS`: the networks that a server keeps.

It knows the client's list; no program in particular.
"""

from __future__ import annotations

import json
import time

import click

from layerwire.cli import connection


@click.command()
@connection.address
@click.option("--prefix", default="", metavar="TEXT", help="Only names that start so.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@connection.timeout(30.0)
def command(address: str, prefix: str, json_: bool, timeout: float) -> None:
    """List the programs of a server with their versions."""
    with connection.client(address, timeout) as client:
        programs = client.programs(prefix)
    if json_:
        objects = [one._asdict() | {"versions": [version._asdict() for version in one.versions]} for one in programs]
        click.echo(json.dumps(objects, indent=2))
        return
    from layerwire.cli.tables import console, table

    rows = table("Programs", "name", "version", "put", "digest", "pinned", right=("version",))
    for program in programs:
        for version in program.versions:
            put = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(version.put_seconds))
            mark = " (default)" if version.version == program.default_version else ""
            is_pinned = "yes" if version.pinned else ""
            rows.add_row(program.name, f"{version.version}{mark}", put, version.digest[:16], is_pinned)
    console().print(rows if programs else "no programs")
