"""A stored program as a kind of call: random inputs, and the answers it should give by its own weights.

It knows what a server tells of a program, and models of any other server by their inputs; nothing of how calls travel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from layerwire import Client
from layerwire.calls import Requests
from layerwire.errors import LayerwireError
from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import DTYPE_NAMES
from layerwire_bench.answers import reference
from layerwire_bench.sending import tensors
from layerwire_bench.sending.operators import shape_text
from layerwire_bench.sending.tensors import USUAL, Array, RandomTensor, SampleSettings, Shape, Source, StoredTensor
from layerwire_bench.workload import Arrays, Entry, Sample, Terms

FREE = -1
MAX_WEIGHTS_BYTES = 1 << 30
_NOTHING = {"unused": np.zeros(1, np.float32)}


class Input(NamedTuple):
    """An input: dtype by name, shape with -1 for a free axis."""

    name: str
    dtype: str
    shape: Shape


@dataclass(frozen=True)
class Program:
    """What is known of a program, or of another server's model.

    Attributes:
        name: the program's.
        version: its number; None for the default one, whichever that is when a call comes.
        inputs: what a call brings.
        definition: the program; None where it isn't known, so that the first answer is what answers should be.
        constants: its stored constants by their names.
        note: why the definition isn't there; None where it is.
    """

    name: str
    version: int | None
    inputs: tuple[Input, ...]
    definition: program_pb2.Program | None = None
    constants: Arrays = field(default_factory=dict)
    note: str | None = None


def stored_program(client: Client, name: str, version: int | None = None) -> Program:
    """A program of a server's store, with its weights where torch is here to compute with them.

    Raises:
        LayerwireError: there is no such program, or the server can't be reached.
    """
    answer = client.describe(name, version)
    inputs = tuple(Input(one.name, DTYPE_NAMES[one.dtype], tuple(one.shape)) for one in answer.inputs)
    if reference.available() is None:
        return Program(name, version, inputs, note="torch isn't installed")
    size_bytes = answer.parameter_bytes
    if size_bytes > MAX_WEIGHTS_BYTES:
        note = f"its weights are {size_bytes:,} bytes, more than the {MAX_WEIGHTS_BYTES:,} that are fetched"
        return Program(name, version, inputs, note=note)
    try:
        constants = _constants(client, [one for one in answer.program.constants if one.HasField("stored")])
    except (LayerwireError, TypeError) as error:
        return Program(name, version, inputs, note=f"its weights can't be fetched: {error}")
    return Program(name, version, inputs, answer.program, constants)


def _constants(client: Client, constants: Iterable[program_pb2.Constant]) -> dict[str, Array]:
    """Stored constants by name: the answers of programs that go along and return one each as it is.

    So nothing changes in the store, which may be read-only.
    """
    arrays: dict[str, Array] = {}
    for constant in constants:  # by themselves: so each fits in an answer that fits in any
        program = program_pb2.Program(constants=[constant])
        program.inputs.add(name="unused", dtype="DATA_TYPE_FLOAT32", shape=[1])
        node = program.nodes.add(name="node")
        node.inputs.add(field="input", value=constant.name)
        node.transform.identity.SetInParent()
        program.outputs.add(name=constant.name, value=node.name)
        arrays |= client.run(program, _NOTHING)
    return arrays


def entry_for(
    program: Program,
    shapes: Mapping[str, Source] | None = None,
    *,
    rows: int | None = None,
    settings: SampleSettings = USUAL,
    index: int = 0,
    terms: Terms = Terms(),  # noqa: B008  # frozen
) -> tuple[Entry, list[Sample]]:
    """Calls of a program, and their samples.

    Args:
        program: the program.
        shapes: shapes of inputs by name, or arrays; those left out are the program's, with `rows` along a free axis 0.
        rows: 1 if None.
        settings: how samples are made.
        index: of the entry within its workload.
        terms: how its calls are treated.

    Raises:
        ValueError: an input is unknown, its shape is not what the program takes, or a message can't bring it.
    """
    shapes = shapes or {}
    sources = {one.name: _source(program, one, shapes.get(one.name), rows, settings) for one in program.inputs}
    unknown = next((name for name in shapes if name not in sources), None)
    if unknown is not None:
        raise ValueError(f"run {program.name}: {unknown[:40]} is none of its inputs {', '.join(sources)}")
    texts = {name: shape_text(one.shape) for name, one in sources.items()}
    name = f"{program.name}{'' if program.version is None else f' version {program.version}'}"
    brief = next(iter(texts.values())) if len(texts) == 1 else ", ".join(f"{key}={one}" for key, one in texts.items())
    inputs = ", ".join(f"{one.name}={texts[one.name]} {one.dtype}" for one in program.inputs)
    description = f"run {name}, {inputs}{terms}"
    entry = Entry(f"{name} {brief}", description, terms.share, terms.priority, terms.deterministic)
    return entry, list(_samples(program, sources, settings, index))


def _samples(
    program: Program, sources: Mapping[str, RandomTensor | Array], settings: SampleSettings, index: int
) -> Iterator[Sample]:
    """Samples of an entry by its number; the first tells how far the answers of all may be off."""
    dtype = next((one.dtype for one in program.inputs if "float" in one.dtype), "float32")
    tolerance: reference.Tolerance | None = None
    for number in range(settings.samples):
        random, inputs = settings.random(index, number), dict[str, Array]()
        for one in program.inputs:
            source = sources[one.name]
            if isinstance(source, RandomTensor):
                source = tensors.random_array(random, source.shape, one.dtype)
            inputs[one.name] = source
        settings.check(f"run {program.name}: its inputs", sum(int(one.nbytes) for one in inputs.values()))
        request = Requests().run(program.name, inputs, version=program.version)
        expected = reference.no_expectation(request, dtype)
        if settings.verify:
            expected = reference.expectation(request, dtype, program.constants, program.definition, tolerance=tolerance)
        tolerance = None if expected.outputs is None else (expected.rtol, expected.atol)
        yield Sample(index, request, *expected, weights=program.constants, program=program.definition)


def _source(
    program: Program, one: Input, source: Source | None, rows: int | None, settings: SampleSettings
) -> RandomTensor | Array:
    """What an input is to be."""
    subject = f"run {program.name}: {one.name}"
    if source is None:
        shape = tuple(rows or 1 if axis == 0 and extent == FREE else extent for axis, extent in enumerate(one.shape))
        if FREE in shape:
            how = f"--shape {one.name}=... says how long they are"
            raise ValueError(f"{subject} has free axes {shape_text(one.shape)}; {how}")
        return RandomTensor(settings.check_shape(subject, shape, one.dtype))
    if isinstance(source, StoredTensor):
        raise ValueError(f"{subject} must be a shape or an array, got name:{source.name}")  # noqa: TRY004
    if len(source.shape) != len(one.shape) or any(
        limit not in (FREE, extent) for extent, limit in zip(source.shape, one.shape, strict=True)
    ):
        shapes = f"{shape_text(one.shape)}, -1 for any, got {shape_text(source.shape)}"
        raise ValueError(f"{subject} must have shape {shapes}")
    if isinstance(source, RandomTensor):
        return RandomTensor(settings.check_shape(subject, source.shape, one.dtype))
    if source.dtype.name != one.dtype:
        raise ValueError(f"{subject} must be {one.dtype}, got an array of {source.dtype.name}")
    return source
