"""`layerwire info ADDRESS`: versions, workers, limits and operators of a server, for people or as JSON.

It knows GetServerInfo; no operator in particular.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from layerwire.cli import connection

if TYPE_CHECKING:
    from rich.table import Table

    from layerwire.v1.layerwire_pb2 import GetServerInfoResponse


def as_json(info: GetServerInfoResponse) -> dict[str, Any]:
    """The answer as plain values; numbers stay numbers, which protobuf's own JSON makes strings of."""
    limits = {field.name: getattr(info.limits, field.name) for field in info.limits.DESCRIPTOR.fields}
    workers = [
        {field.name: getattr(worker, field.name) for field in worker.DESCRIPTOR.fields} for worker in info.workers
    ]
    return {
        "version": info.version,
        "torch_version": info.torch_version,
        "workers": workers,
        "limits": limits,
        "numerics": dict(sorted(info.numerics.items())),
        "operators": list(info.operators),
    }


def _readable(name: str, value: int) -> str:
    if "_bytes" not in name:
        return f"{value:,}"
    mib = value / 1024**2
    return f"{value:,}  ({mib:,.4g} MiB)"


def _tables(info: GetServerInfoResponse) -> list[Table]:
    from layerwire.cli.tables import table

    workers = table("Workers", "worker", "device", "name", "healthy")
    for worker in info.workers:
        healthy = "[green]yes[/]" if worker.healthy else "[red]no[/]"
        workers.add_row(str(worker.index), worker.device, worker.device_name, healthy)
    limits = table("Limits", "limit", "value")
    for field in info.limits.DESCRIPTOR.fields:
        limits.add_row(field.name, _readable(field.name, getattr(info.limits, field.name)))
    numerics = table("Numerics", "setting", "value")
    for name, value in sorted(info.numerics.items()):
        numerics.add_row(name, value)
    return [one for one in (workers, limits, numerics) if one.row_count]


@click.command()
@connection.address
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@connection.timeout(5.0)
def command(address: str, json_: bool, timeout: float) -> None:
    """Show versions, workers, limits and operators of a server."""
    with connection.client(address, timeout) as client:
        info = client.server_info()
    if json_:
        click.echo(json.dumps(as_json(info), indent=2))
        return
    from rich.columns import Columns
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"[bold]{address}[/]  layerwire {info.version}, torch {info.torch_version}\n")
    for table in _tables(info):
        console.print(table)
    console.print(f"[bold]Operators[/] ({len(info.operators)})")
    console.print(Columns(info.operators, padding=(0, 2)))
