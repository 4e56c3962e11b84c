"""What stands on the command line for what is sent: a function's options, those of programs, and those of both.

It knows click and how tensors are written; neither channels nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import click

from layerwire.cli import parameters
from layerwire.wire.dtypes import DTYPES
from layerwire_bench.sending import operators, tensors

Read_co = TypeVar("Read_co", covariant=True)


class Reading(click.ParamType, Generic[Read_co]):  # type: ignore[type-arg,unused-ignore]  # older clicks' has no []
    """A word that a function reads; its ValueError becomes click's."""

    def __init__(self, name: str, read: Callable[[str], Read_co]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """What is read; a default that isn't text stays."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_SHAPE = Reading("shape", tensors.shape)
_TENSOR = Reading("tensor", tensors.source)


def options_for(function: str) -> list[click.Option]:
    """Options of a function besides its input: its parameters, where a tensor is a shape, name:NAME or a .npy file.

    Raises:
        ValueError: there is no such function.
    """
    return [
        _tensor_option(one.name) if operators.is_tensor(one) else parameters.option(one)
        for one in operators.options_of(function)
    ]


def _tensor_option(name: str) -> click.Option:
    told = "A random tensor of this shape, weights of the server by name:NAME, or a .npy file."
    return click.Option(
        ["--" + name.strip("_").replace("_", "-"), name], type=_TENSOR, metavar="SHAPE|name:NAME|FILE", help=told
    )


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of what click read, what was given."""
    return {name: value for name, value in values.items() if value is not None}


def input_options() -> list[click.Option]:
    """--shape and --dtype of an operator's input."""
    names = ", ".join(DTYPES)
    return [
        click.Option(["--shape"], type=_SHAPE, required=True, metavar="INT[,INT...]", help="Shape of the input."),
        click.Option(
            ["--dtype"], type=parameters.dtype, default="float32", metavar="DTYPE",
            help=f"Of random tensors: {names}. Default: float32.",
        ),
    ]  # fmt: skip


def program_options() -> list[click.Option]:
    """--rows, --shape and --version of a program."""
    return [
        click.Option(
            ["--rows"], type=click.IntRange(min=1), metavar="INT", help="Rows where axis 0 is free. Default: 1."
        ),
        click.Option(
            ["--shape", "shapes"], type=Reading("shape", named), multiple=True, metavar="NAME=SHAPE|FILE",
            help="Shape of an input, or a .npy file with it. Again for the next input.",
        ),
        click.Option(["--version"], type=int, metavar="INT", help="Version of the program. Default: the default one."),
    ]  # fmt: skip


def sample_options() -> list[click.Option]:
    """--samples and --max-message-bytes, which all workloads have."""
    return [
        click.Option(
            ["--samples"], type=click.IntRange(1, 1024), default=tensors.USUAL.samples, show_default=True,
            metavar="N", help="Different inputs of each kind of call.",
        ),
        click.Option(
            ["--max-message-bytes"], type=click.IntRange(1 << 20, 2046 << 20), default=tensors.USUAL.max_message_bytes,
            show_default=True, metavar="BYTES", help="Largest message that the server takes.",
        ),
    ]  # fmt: skip


def named(text: str) -> tuple[str, tensors.Source]:
    """What is meant by input=1,1,28,28 or input=x.npy.

    Raises:
        ValueError: it is neither.
    """
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise ValueError(f"{text[:80]}: must be NAME=SHAPE or NAME=FILE, such as input=1,1,28,28")
    source = tensors.source(value)
    if isinstance(source, tensors.Stored):
        raise ValueError(f"{text[:80]}: must be a shape or a file, for a program's inputs have no names in the store")  # noqa: TRY004
    return name, source
