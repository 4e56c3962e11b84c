"""Command lines of `layerwire bench` read as the command reads them, for tests."""

from __future__ import annotations

import shlex

import click

from layerwire_bench.sending import operators, options
from layerwire_bench.sending.tensors import USUAL, Making
from layerwire_bench.workload import Entry, Sample


def asked(words: str, making: Making = USUAL, **more) -> tuple[Entry, list[Sample]]:
    """The entry of "FUNCTION --shape ... ..."."""
    function, *args = shlex.split(words)
    params = [*options.input_options(), *options.options_for(function)]
    command = click.Command(function, params=params)
    context = command.make_context(function, args, resilient_parsing=False)
    given = options.given(context.params)
    shape, dtype = given.pop("shape"), given.pop("dtype")
    return operators.entry_for(function, shape, given, dtype=dtype, making=making, **more)
