"""`layerwire describe ADDRESS NAME`: a program's layers with shapes, parameters and operations.

It knows what GetProgram tells; no operator in particular.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from layerwire.cli import connection

if TYPE_CHECKING:
    from rich.table import Table

    from layerwire.v1.store_pb2 import GetProgramResponse


def as_json(found: GetProgramResponse) -> dict[str, Any]:
    """The answer as plain values, without the program itself."""
    nodes = [
        {
            "name": node.name,
            "operator": node.operator,
            "outputs": [_spec(output) for output in node.outputs],
            "parameters": node.parameters,
            "floating_point_operations": node.floating_point_operations,
            "folded_into": node.folded_into,
        }
        for node in found.nodes
    ]
    ends = {
        kind: [{"name": one.name, "tensor": _spec(one)} for one in getattr(found, kind)]
        for kind in ("inputs", "outputs")
    }
    names = ("parameters", "parameter_bytes", "floating_point_operations", "peak_bytes")
    totals = {name: getattr(found, name) for name in names}
    told = {"name": found.name, "version": found.version, "digest": found.digest, **ends, "nodes": nodes, **totals}
    return {**told, "batched": found.batched, "alone_because": found.alone_because}


def _spec(tensor: Any) -> str:
    from layerwire.cli.tables import spec
    from layerwire.wire.dtypes import DTYPE_NAMES

    return spec(DTYPE_NAMES.get(tensor.dtype, "unknown"), tuple(tensor.shape))


def _layers(found: GetProgramResponse) -> Table:
    from rich.markup import escape

    from layerwire.cli.tables import plain, table

    columns = ("node", "operator", "gives for one row", "parameters", "operations")
    layers = table("Layers", *columns, right=columns[3:])
    for node in found.nodes:
        given = escape("\n".join(map(_spec, node.outputs)))
        work = f"in {escape(plain(node.folded_into))}" if node.folded_into else f"{node.floating_point_operations:,}"
        style = "dim" if node.folded_into else None
        parameters = f"{node.parameters:,}" if node.parameters else ""
        layers.add_row(escape(plain(node.name)), node.operator, given, parameters, work, style=style)
    layers.add_section()
    layers.add_row("total", "", "", f"{found.parameters:,}", f"{found.floating_point_operations:,}", style="bold")
    return layers


@click.command()
@connection.address
@click.argument("name")
@click.option("--version", type=int, metavar="NUMBER", help="Default: the default version.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@connection.timeout(30.0)
def command(address: str, name: str, version: int | None, json_: bool, timeout: float) -> None:
    """Show a program's layers, shapes, parameters and operations.

    Operations are floating-point ones for one row, a multiply and an add counted as two. A layer that was folded into
    another takes none of its own.
    """
    with connection.client(address, timeout) as client:
        found = client.describe(name, version)
    if json_:
        click.echo(json.dumps(as_json(found), indent=2))
        return
    from rich.markup import escape

    from layerwire.cli.tables import console, plain, size

    shown = console()
    shown.print(f"[bold]{escape(found.name)}[/] version {found.version}, digest {found.digest[:16]}\n")
    shown.print(_layers(found))
    for kind in ("inputs", "outputs"):
        ends = ", ".join(f"{plain(one.name)}: {_spec(one)}" for one in getattr(found, kind))
        shown.print(f"{kind + ':':<9}{escape(ends)}")
    shown.print(f"weights: {size(found.parameter_bytes)}; values of one row: at most {size(found.peak_bytes)}")
    together = "calls share batches" if found.batched else f"calls run alone: {found.alone_because}"
    shown.print(escape(plain(together)))
