"""`layerwire run ADDRESS NAME --input NAME=VALUE ...`: one call of a program.

It knows the client's method and how tensors are written; no program in particular.
"""

from __future__ import annotations

from typing import Any

import click

from layerwire.cli import connection
from layerwire.cli.answers import keep
from layerwire.cli.parameters import DTYPE, Tensor
from layerwire.cli.tables import plain


class NameAndValue(click.ParamType):  # type: ignore[type-arg]  # older clicks' has no []
    """NAME=VALUE, the value of another type."""

    name = "name=value"

    def __init__(self, value: click.ParamType | None) -> None:  # type: ignore[type-arg,unused-ignore]
        self._value = value

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The name, and the value converted."""
        name, equals, rest = value.partition("=")
        if not equals or not name:
            self.fail(f"{value}: must be NAME=VALUE", param, ctx)
        return name, rest if self._value is None else self._value.convert(rest, param, ctx)


@click.command()
@connection.address
@click.argument("name")
@click.option(
    "--input",
    "inputs",
    type=NameAndValue(Tensor("float32")),
    multiple=True,
    required=True,
    metavar="NAME=TENSOR",
    help="An input: a .npy file, or numbers as JSON; once for each.",
)
@click.option(
    "--output",
    "outputs",
    type=NameAndValue(None),
    multiple=True,
    metavar="NAME=FILE",
    help="Write this output to a .npy file.",
)
@click.option("--intermediate", "intermediates", multiple=True, metavar="NAME", help="Return this value too.")
@click.option("--version", type=click.IntRange(min=1), help="The version.  [default: the default version]")
@click.option(
    f"--{DTYPE}", DTYPE, is_eager=True, help="dtype of the inputs.  [default: the file's; of numbers, float32]"
)
@connection.timeout(30.0)
def command(
    address: str,
    name: str,
    inputs: tuple[tuple[str, Any], ...],
    outputs: tuple[tuple[str, str], ...],
    intermediates: tuple[str, ...],
    version: int | None,
    timeout: float,
    **_: Any,
) -> None:
    """Run a program of a server.

    `layerwire describe ADDRESS NAME` tells its inputs, outputs and values.
    """
    with connection.client(address, timeout) as client:
        answer = client.run(name, dict(inputs), version=version, intermediates=intermediates)
    files = dict(outputs)
    unknown = next((output for output in files if output not in answer), None)
    if unknown is not None:
        raise click.UsageError(f"--output: {name} gave {', '.join(answer)}, not {unknown}")
    for output in sorted(answer, key=lambda output: (output in intermediates, output)):
        click.echo(f"{plain(output)}: ", nl=False)
        keep([answer[output]], [files[output]] if output in files else [])
