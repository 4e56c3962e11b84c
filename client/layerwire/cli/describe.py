"""`layerwire describe ADDRESS [NAME]`: a program's layers with shapes, parameters and operations; kernels by trial.

It knows what GetProgram and ListKernels tell; no operator in particular.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from layerwire.cli import connection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from layerwire.v1.store_pb2 import GetProgramResponse, KernelChoice

_MOST_SHOWN = 100  # kernels in a table


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
    kernels = [kernel_as_json(choice) for choice in program.kernels]
    return {**head, "batched": program.batched, "alone_because": program.alone_because, "kernels": kernels}


def kernel_as_json(choice: KernelChoice) -> dict[str, Any]:
    """A choice as plain values."""
    names = ("operator", "parameters", "inputs", "kernel", "times_as_fast", "same_bits", "start_seconds")
    trials = [
        {"kernel": one.kernel, "result": one.result, "times_as_fast": round(one.times_as_fast, 2)}
        for one in choice.trials
    ]
    plain = {name: getattr(choice, name) for name in names}
    return {**plain, "times_as_fast": round(choice.times_as_fast, 2), "trials": trials}


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


def _kernels(choices: Sequence[KernelChoice]) -> Table:
    from rich.markup import escape

    from layerwire.cli.tables import plain, table

    is_one = len({(choice.operator, choice.parameters) for choice in choices}) == 1  # a program, say
    columns = ("batch", "kernel", "times eager", "bits", "tried")
    kernels = table("Kernels by trial", *(() if is_one else ("runs",)), *columns, right=("times eager",))
    for choice in choices[:_MOST_SHOWN]:
        runs = choice.parameters if choice.operator == "run" else f"{choice.operator} {choice.parameters}"
        tried = ", ".join(
            f"{one.kernel} {f'{one.times_as_fast:.2f}' if one.times_as_fast else one.result}" for one in choice.trials
        )
        bits = "torch's" if choice.same_bits or choice.kernel == "eager" else "its own"
        cells = (choice.inputs, choice.kernel, f"{choice.times_as_fast:.2f}", bits, tried)
        kernels.add_row(*(escape(plain(cell)) for cell in (*(() if is_one else (runs,)), *cells)))
    if len(choices) > _MOST_SHOWN:
        kernels.caption = f"{len(choices) - _MOST_SHOWN} more: --json has all"
    return kernels


def _print_all_kernels(choices: Sequence[KernelChoice], *, json_: bool) -> None:
    if json_:
        click.echo(json.dumps({"kernels": [kernel_as_json(choice) for choice in choices]}, indent=2))
    elif choices:
        from layerwire.cli.tables import console

        console().print(_kernels(choices))
    else:
        click.echo("No kernels were chosen by trial: nothing is hot yet, or --tune is off.")


@click.command()
@connection.address
@click.argument("name", required=False)
@click.option("--version", type=int, metavar="NUMBER", help="Default: the default version.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@connection.timeout(30.0)
def command(address: str, name: str | None, version: int | None, json_: bool, timeout: float) -> None:
    """Show a program's layers, shapes, parameters and operations.

    Without NAME, which kernels were chosen by trial for any operator or program.

    Operations are floating-point ones for one row, a multiply and an add counted as two. A layer that was folded into
    another takes none of its own.

    Kernels are chosen by trial on what is called often (`layerwire serve --tune`), by sizes of batches: float32[<8, 3]
    has 4 to 7 rows. Shown are how many times as fast as torch's each was, and whether the answer has torch's bits.
    """
    with connection.client(address, timeout) as client:
        if name is None:
            _print_all_kernels(client.kernels(), json_=json_)
            return
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
    if program.kernels:
        out.print()
        out.print(_kernels(program.kernels))
