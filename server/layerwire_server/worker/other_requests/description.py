"""What GetProgram answers of a program: its nodes in the order they run, with shapes, parameters and work for one row.

It knows programs and messages; nothing of stores, names or devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import program_pb2, store_pb2, tensor_pb2
from layerwire.wire import framing
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.programs.check import GraphSizes, ProgramLimits, graph_sizes
from layerwire_server.programs.graph import ABSENT, Step
from layerwire_server.programs.program import Program
from layerwire_server.programs.variant import Variant

_NO_LIMITS = ProgramLimits(1 << 62, 1 << 62, math.inf)  # it passed the real ones when it was put


def describe(program: Program, device_type: str) -> store_pb2.GetProgramResponse:
    """All but name and version. For any thread; it takes about as long as checking the program did.

    Folded nodes have the shapes they would give and no work, since they don't run.
    """
    plain = _at_one_row(program.plain, device_type)
    running = _at_one_row(program.variant, device_type)
    steps = program.variant.graph.steps
    work = dict(zip((step.name for step in steps), running.operations, strict=True))
    constants = dict(enumerate(program.plain.constants, program.graph.first_constant))
    return store_pb2.GetProgramResponse(
        digest=program.digest,
        program=program.message,
        inputs=program.message.inputs,
        outputs=outputs(program.plain),
        nodes=[
            store_pb2.NodeInfo(
                name=step.name,
                operator=step.operator.title,
                outputs=[framing.bare(spec) for slot in step.outputs if (spec := plain.specs[slot]) is not None],
                parameters=sum(_elements(constants[slot]) for slot in sorted(_weights(step, constants))),
                floating_point_operations=work.get(step.name, 0),
                folded_into=program.folded_into.get(step.name, ""),
            )
            for step in program.graph.steps
        ],
        batched=program.variant.batched,
        alone_because=program.variant.alone_because,
        parameters=sum(map(_elements, constants.values())),
        parameter_bytes=sum(spec.nbytes for spec in constants.values()),
        floating_point_operations=sum(running.operations),
        peak_bytes=running.peak_bytes,
    )


def _at_one_row(variant: Variant, device_type: str) -> GraphSizes:
    inputs = [program_input.at(1) for program_input in variant.graph.inputs]
    try:
        return graph_sizes(variant.graph, inputs, variant.constants, _NO_LIMITS, device_type)
    except InvalidArgumentError:  # one row is too few, as for batch norm in training
        return _before(*variant.sizes)


def _before(first: GraphSizes, second: GraphSizes) -> GraphSizes:
    """What one row less than `first` would give, on the line through both sizes."""
    specs = tuple(
        one and two and one._replace(shape=tuple(_line(*sizes) for sizes in zip(one.shape, two.shape, strict=True)))
        for one, two in zip(first.specs, second.specs, strict=True)
    )
    operations = tuple(_line(*counts) for counts in zip(first.operations, second.operations, strict=True))
    peak_bytes = _line(first.peak_bytes, second.peak_bytes)
    return GraphSizes(specs, operations, first.work, peak_bytes, _line(first.value_bytes, second.value_bytes))


def _line(first: int, second: int) -> int:
    return max(0, 2 * first - second)


def outputs(variant: Variant) -> Iterable[program_pb2.ProgramInput]:
    """What a variant gives, with -1 along axes that differ between the sizes that a program is checked at."""
    first, second = variant.sizes
    for name, slot in variant.graph.outputs:
        one, two = first.specs[slot], second.specs[slot]
        assert one is not None
        assert two is not None
        shape = [size if size == other else -1 for size, other in zip(one.shape, two.shape, strict=True)]
        yield program_pb2.ProgramInput(name=name, dtype=tensor_pb2.DataType.Name(one.dtype), shape=shape)


def _weights(step: Step, constants: Mapping[int, TensorSpec]) -> set[int]:
    return {slot for slot in step.inputs if slot != ABSENT and slot in constants}


def _elements(spec: TensorSpec) -> int:
    return math.prod(spec.shape)
