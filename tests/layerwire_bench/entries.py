"""Command lines of `layerwire bench` read as the command reads them, for tests."""

from __future__ import annotations

import shlex

import click

from layerwire_bench import flags
from layerwire_bench.sending import operators
from layerwire_bench.sending.tensors import USUAL, SampleSettings
from layerwire_bench.workload import Entry, Sample, Terms


def entry_of(words: str, settings: SampleSettings = USUAL, **terms) -> tuple[Entry, list[Sample]]:
    """The entry of "FUNCTION --shape ... ...", and its samples."""
    function, *args = shlex.split(words)
    command = click.Command(function, params=flags.operator_options(function))
    context = command.make_context(function, args, resilient_parsing=False)
    values = {name: value for name, value in context.params.items() if value is not None}
    shape, dtype = values.pop("shape"), values.pop("dtype")
    return operators.entry_for(function, shape, values, dtype=dtype, settings=settings, terms=Terms(**terms))
