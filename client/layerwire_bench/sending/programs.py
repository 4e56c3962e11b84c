"""A stored program as a kind of call: random inputs, and the answers it should give by its own weights.

It knows what a server tells of a program, and models of any other server by their inputs; nothing of how calls travel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from layerwire.calls import Requests
from layerwire.errors import LayerwireError
from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES, ITEMSIZES
from layerwire_bench.answers import reference
from layerwire_bench.sending import tensors
from layerwire_bench.sending.operators import shown
from layerwire_bench.sending.tensors import USUAL, Array, Making, Shape, Shaped, Source
from layerwire_bench.sending.workload import Arrays, Entry, Sample

if TYPE_CHECKING:
    from layerwire import Client

FREE = -1
MAX_WEIGHTS_BYTES = 1 << 30
_AT_ONCE = 64  # constants of one call: as many outputs as a program may have


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
    found = client.describe(name, version)
    inputs = tuple(Input(one.name, DTYPE_NAMES[one.dtype], tuple(one.shape)) for one in found.inputs)
    if reference.available() is None:
        return Program(name, version, inputs, note="torch isn't installed")
    if found.parameter_bytes > MAX_WEIGHTS_BYTES:
        note = f"its weights are {found.parameter_bytes:,} bytes, more than the {MAX_WEIGHTS_BYTES:,} that are fetched"
        return Program(name, version, inputs, note=note)
    stored = [one for one in found.program.constants if one.HasField("stored")]
    try:
        constants = _fetched(client, stored)
    except (LayerwireError, TypeError) as error:
        return Program(name, version, inputs, note=f"its weights can't be fetched: {error}")
    return Program(name, version, inputs, found.program, constants)


def _fetched(client: Client, constants: Sequence[program_pb2.Constant]) -> dict[str, Array]:
    """Stored constants by name: the answers of a program that goes along and returns them as they are.

    So nothing changes in the store, which may be read-only.
    """
    found: dict[str, Array] = {}
    for group in _groups(client, constants):
        found |= client.run(_returning(group), {"unused": np.zeros(1, np.float32)})
    return found


def _groups(client: Client, constants: Sequence[program_pb2.Constant]) -> Iterable[list[program_pb2.Constant]]:
    """Constants that fit in an answer together."""
    for start in range(0, len(constants), _AT_ONCE):
        some = constants[start : start + _AT_ONCE]
        told = client.estimate("run", _returning(some), {"unused": np.zeros(1, np.float32)}).outputs
        group: list[program_pb2.Constant] = []
        size_bytes = 0
        for constant, output in zip(some, told, strict=True):
            nbytes = math.prod(output.shape) * ITEMSIZES[DTYPES[output.dtype]]
            if group and size_bytes + nbytes > USUAL.max_elements_bytes // 2:
                yield group
                group, size_bytes = [], 0
            group.append(constant)
            size_bytes += nbytes
        yield group


def _returning(constants: Iterable[program_pb2.Constant]) -> program_pb2.Program:
    """The program that gives these constants."""
    unused = program_pb2.ProgramInput(name="unused", dtype="DATA_TYPE_FLOAT32", shape=[1])
    program = program_pb2.Program(inputs=[unused], constants=constants)
    for number, constant in enumerate(program.constants):
        node = program.nodes.add(name=f"node {number}")
        node.inputs.add(field="input", value=constant.name)
        node.transform.identity.SetInParent()
        program.outputs.add(name=constant.name, value=node.name)
    return program


def entry_for(
    program: Program,
    shapes: Mapping[str, Source] | None = None,
    *,
    rows: int | None = None,
    making: Making = USUAL,
    index: int = 0,
    share: float = 1.0,
    priority: int = 0,
    deterministic: bool = False,
) -> tuple[Entry, list[Sample]]:
    """Calls of a program, and their samples.

    Args:
        program: the program.
        shapes: shapes of inputs by name, or arrays; those left out are the program's, with `rows` along a free axis 0.
        rows: 1 if None.
        making: how samples are made.
        index: of the entry within its workload.
        share: the entry's.
        priority: the entry's.
        deterministic: the entry's.

    Raises:
        ValueError: an input is unknown, its shape is not what the program takes, or a message can't bring it.
    """
    sources = {one.name: _source(program, one, dict(shapes or {}), rows, making) for one in program.inputs}
    unknown = next((name for name in shapes or {} if name not in sources), None)
    if unknown is not None:
        raise ValueError(f"run {program.name}: {unknown[:40]} is none of its inputs {', '.join(sources)}")
    said = {name: shown(one.shape) for name, one in sources.items()}
    name = f"{program.name}{'' if program.version is None else f' version {program.version}'}"
    brief = next(iter(said.values())) if len(said) == 1 else ", ".join(f"{key}={one}" for key, one in said.items())
    inputs = ", ".join(f"{one.name}={said[one.name]} {one.dtype}" for one in program.inputs)
    how = f"{f', priority={priority}' if priority else ''}{', deterministic=true' if deterministic else ''}"
    entry = Entry(f"{name} {brief}", f"run {name}, {inputs}{how}", share, priority, deterministic)
    first = _sample(program, sources, making, (index, 0), None)
    allowed = None if first.expected is None else (first.rtol, first.atol)
    rest = [_sample(program, sources, making, (index, number), allowed) for number in range(1, making.samples)]
    return entry, [first, *rest]


def _sample(
    program: Program,
    sources: Mapping[str, Source],
    making: Making,
    numbers: tuple[int, int],
    allowed: tuple[float, float] | None,
) -> Sample:
    """A sample, by the numbers of its entry and of itself."""
    random = making.random(*numbers)
    inputs: dict[str, Any] = {
        one.name: tensors.drawn(random, source.shape, one.dtype) if isinstance(source, Shaped) else source
        for one in program.inputs
        for source in [sources[one.name]]
    }
    making.check(f"run {program.name}: its inputs", sum(_nbytes(one) for one in inputs.values()))
    request = Requests().run(program.name, inputs, version=program.version)
    dtype = next((one.dtype for one in program.inputs if "float" in one.dtype), "float32")
    expected = reference.unknown(request, dtype)
    if making.expects:
        expected = reference.expected(request, dtype, program.constants, program.definition, allowed=allowed)
    return Sample(numbers[0], request, *expected, stored=program.constants, program=program.definition)


def _nbytes(array: Any) -> int:
    return int(array.nbytes)


def _source(
    program: Program, one: Input, shapes: Mapping[str, Source], rows: int | None, making: Making
) -> Shaped | Array:
    """What an input is to be."""
    subject = f"run {program.name}: {one.name}"
    given = shapes.get(one.name)
    if given is None:
        shape = tuple(rows or 1 if axis == 0 and extent == FREE else extent for axis, extent in enumerate(one.shape))
        if FREE in shape:
            raise ValueError(
                f"{subject} has free axes {shown(one.shape)}; --shape {one.name}=... says how long they are"
            )
        return Shaped(tensors.checked(subject, shape, one.dtype, making))
    if isinstance(given, tensors.Stored):
        raise ValueError(f"{subject} must be a shape or an array, got name:{given.name}")  # noqa: TRY004
    fits = len(given.shape) == len(one.shape) and all(
        wanted in (FREE, extent) for extent, wanted in zip(given.shape, one.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{subject} must have shape {shown(one.shape)}, -1 for any, got {shown(given.shape)}")
    if isinstance(given, Shaped):
        return Shaped(tensors.checked(subject, given.shape, one.dtype, making))
    if given.dtype.name != one.dtype:
        raise ValueError(f"{subject} must be {one.dtype}, got an array of {given.dtype.name}")
    return given
