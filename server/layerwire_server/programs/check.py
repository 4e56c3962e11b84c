"""What a program gives for inputs of a given size: every node's checks, then its outputs' specs, cost and peak memory.

It knows operators and the meta device; nothing of weights' contents, lanes or devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from layerwire.errors import InvalidArgumentError, invalid
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.unpool import MaxUnpool
from layerwire_server.programs.graph import ABSENT, Graph, Step, last_reads

CHECKED_ROWS = (2, 3)  # sizes of the free axis that a program is checked at; 1 would hide what broadcasts


class ProgramLimits(NamedTuple):
    """What one call of a program may cost.

    Attributes:
        value_bytes: largest value.
        peak_bytes: most bytes of values at one time.
        operations: most work, weighed.
    """

    value_bytes: int
    peak_bytes: int
    operations: float


@dataclass(frozen=True)
class GraphSizes:
    """A graph at one size of its inputs.

    Attributes:
        specs: of each slot; None for outputs that an operator doesn't give with its parameters.
        operations: floating-point operations of each step.
        work: the same weighed, of all steps.
        peak_bytes: most bytes of inputs and values at one time.
        value_bytes: bytes of all values together, as where none is freed before the end.
    """

    specs: tuple[TensorSpec | None, ...]
    operations: tuple[int, ...]
    work: float
    peak_bytes: int
    value_bytes: int


def graph_sizes(
    graph: Graph, inputs: Sequence[TensorSpec], constants: Sequence[TensorSpec], limits: ProgramLimits, device_type: str
) -> GraphSizes:
    """The graph at inputs of these specs.

    Raises:
        InvalidArgumentError: naming the node that can't run, or costs too much.
    """
    specs: list[TensorSpec | None] = [None] * graph.slots
    specs[: len(inputs)] = inputs
    specs[len(inputs) : len(inputs) + len(constants)] = constants
    operations: list[int] = []
    work = 0.0
    value_bytes = 0
    live = peak = sum(spec.nbytes for spec in inputs)
    first_value = len(inputs) + len(constants)
    if peak > limits.peak_bytes:
        rule = f"take {peak} bytes, over the server's --max-program-bytes {limits.peak_bytes}"
        raise invalid("program", "inputs", rule)
    for step, dead in zip(graph.steps, _dead(graph), strict=True):
        outputs, count, step_work = _step(step, specs, limits, device_type)
        operations.append(count)
        work += step_work
        for slot, spec in zip(step.outputs, outputs, strict=False):
            specs[slot] = spec
            live += spec.nbytes
            value_bytes += spec.nbytes
        peak = max(peak, live)
        for slot in dead:
            spec_or_none = specs[slot]
            if spec_or_none is not None and (slot < len(inputs) or slot >= first_value):
                live -= spec_or_none.nbytes
        if peak > limits.peak_bytes:
            rule = f"brings the program's values to {peak} bytes, over the server's --max-program-bytes"
            raise step.invalid(InvalidArgumentError(f"{rule} {limits.peak_bytes}"))
        if work > limits.operations:
            rule = f"brings the program's work to {work:.2g} operations, over the server's --max-call-operations"
            raise step.invalid(InvalidArgumentError(f"{rule} {limits.operations:.2g}"))
    return GraphSizes(tuple(specs), tuple(operations), work, peak, value_bytes)


def _dead(graph: Graph) -> list[tuple[int, ...]]:
    return last_reads(graph.steps, {slot for _, slot in graph.outputs})


def _step(
    step: Step, specs: Sequence[TensorSpec | None], limits: ProgramLimits, device_type: str
) -> tuple[tuple[TensorSpec, ...], int, float]:
    operator = step.operator
    inputs = tuple(None if slot == ABSENT else specs[slot] for slot in step.inputs)
    for role, slot, spec in zip(operator.inputs, step.inputs, inputs, strict=True):
        if slot != ABSENT and spec is None:
            raise step.invalid(InvalidArgumentError(f"{operator.title}: {role.name} is a value that isn't given"))
    try:
        operator.check_inputs(inputs, device_type)
        operator.check(inputs)
        bound = operator.output_bytes_bound(inputs)
        if bound > limits.value_bytes:
            rule = f"gives up to {bound} bytes, over the server's --max-output-bytes {limits.value_bytes}"
            raise operator.invalid("input", rule)
        outputs = operator.infer(inputs)
    except InvalidArgumentError as error:
        raise step.invalid(error) from None
    count = operator.operations(inputs, outputs)
    return outputs, count, operator.work(inputs, count)


def row_multiples(graph: Graph, size: GraphSizes) -> tuple[int, ...] | str:
    """For each slot how many entries of its axis 0 belong to a row; or why calls can't share a batch."""
    for program_input in graph.inputs:
        if not program_input.free:
            return f"input {program_input.name} has no free axis 0"
    multiples = [1] * len(graph.inputs) + [0] * (graph.slots - len(graph.inputs))
    for step in graph.steps:
        specs = tuple(None if slot == ABSENT else size.specs[slot] for slot in step.inputs)
        input_multiples = [0 if slot == ABSENT else multiples[slot] for slot in step.inputs]
        multiple = step.operator.row_multiple(specs, input_multiples)
        if multiple is None:
            return f"node {step.name}: {step.operator.title} may mix rows of axis 0"
        for slot in step.outputs:
            multiples[slot] = multiple
    return tuple(multiples)


def doubtful_values(graph: Graph, size: GraphSizes) -> dict[str, bool]:
    """Nodes that look at their inputs' elements: True where calls bring them, False where they are all weights.

    Indices that a max pool of this program found need no check where its input's planes are those they are put into.
    """
    constants = range(graph.first_constant, graph.first_constant + len(graph.constants))
    writers = {slot: step for step in graph.steps for slot in step.outputs}
    doubtful: dict[str, bool] = {}
    for step in graph.steps:
        fields = step.operator.value_inputs
        slots = [
            slot
            for role, slot in zip(step.operator.inputs, step.inputs, strict=True)
            if role.name in fields and slot != ABSENT
        ]
        dynamic = [slot for slot in slots if slot not in constants]
        if slots and not dynamic:
            doubtful[step.name] = False
        elif any(not _fits(step, slot, writers.get(slot), size) for slot in dynamic):
            doubtful[step.name] = True
    return doubtful


def _fits(step: Step, slot: int, writer: Step | None, size: GraphSizes) -> bool:
    operator = step.operator
    if writer is None or not isinstance(operator, MaxUnpool) or writer.operator.family != "pool":
        return False
    pool_input, output = size.specs[writer.inputs[0]], size.specs[step.outputs[0]]
    assert pool_input is not None
    assert output is not None
    axes = operator.spatial_dims
    of_indices = writer.outputs.index(slot) == 1 and writer.operator.outputs[1] == "indices"
    return of_indices and pool_input.shape[-axes:] == output.shape[-axes:]
