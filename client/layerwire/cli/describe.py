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


def as_json(program: GetProgramResponse) -> dict[str, Any]:
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
        for node in program.nodes
    ]
    ends = {
        kind: [{"name": one.name, "tensor": _spec(one)} for one in getattr(program, kind)]
        for kind in ("inputs", "outputs")
    }
    names = ("parameters", "parameter_bytes", "floating_point_operations", "peak_bytes")
    totals = {name: getattr(program, name) for name in names}
    head = {
        "name": program.name,
        "version": program.version,
        "digest": program.digest,
        **ends,
        "nodes": nodes,
        **totals,
    }
    return {**head, "batched": program.batched, "alone_because": program.alone_because}


def _spec(tensor: Any) -> str:
    from layerwire.cli.tables import spec
    from layerwire.wire.dtypes import DTYPE_NAMES

    return spec(DTYPE_NAMES.get(tensor.dtype, "unknown"), tuple(tensor.shape))


def _layers(program: GetProgramResponse) -> Table:
    from rich.markup import escape

    from layerwire.cli.tables import plain, table

    columns = ("node", "operator", "gives for one row", "parameters", "operations")
    layers = table("Layers", *columns, right=columns[3:])
    for node in program.nodes:
        shapes = escape("\n".join(map(_spec, node.outputs)))
        work = f"in {escape(plain(node.folded_into))}" if node.folded_into else f"{node.floating_point_operations:,}"
        style = "dim" if node.folded_into else None
        parameters = f"{node.parameters:,}" if node.parameters else ""
        layers.add_row(escape(plain(node.name)), node.operator, shapes, parameters, work, style=style)
    layers.add_section()
    layers.add_row("total", "", "", f"{program.parameters:,}", f"{program.floating_point_operations:,}", style="bold")
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
        program = client.describe(name, version)
    if json_:
        click.echo(json.dumps(as_json(program), indent=2))
        return
    from rich.markup import escape

    from layerwire.cli.tables import console, plain, size

    out = console()
    out.print(f"[bold]{escape(program.name)}[/] version {program.version}, digest {program.digest[:16]}\n")
    out.print(_layers(program))
    for kind in ("inputs", "outputs"):
        ends = ", ".join(f"{plain(one.name)}: {_spec(one)}" for one in getattr(program, kind))
        out.print(f"{kind + ':':<9}{escape(ends)}")
    out.print(f"weights: {size(program.parameter_bytes)}; values of one row: at most {size(program.peak_bytes)}")
    together = "calls share batches" if program.batched else f"calls run alone: {program.alone_because}"
    out.print(escape(plain(together)))
