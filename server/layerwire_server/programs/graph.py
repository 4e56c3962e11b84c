"""A program's graph: its values as numbered slots, its nodes in running order. Names and references are checked here.

It knows messages and operators; nothing of shapes, contents or devices.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from layerwire.errors import InvalidArgumentError, invalid
from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import DTYPE_NAMES, ITEMSIZES, MAX_AXES, TensorSpec
from layerwire_server.operators import OPERATORS, TRANSFORMS
from layerwire_server.operators.operator import Operator
from layerwire_server.operators.transform import Transform

MAX_INPUTS = MAX_OUTPUTS = 64
MAX_NODES = 4096
MAX_CONSTANTS = 8192
MAX_INLINE_BYTES = 65536
MAX_NAME = 200
ABSENT = -1  # slot of an optional input that is left out
_MOST_SIZE = 2**40
_MOST_BYTES = 2**56  # with any number of rows that a message can bring, far under what int64 counts

_FAMILIES: dict[str, Mapping[str, type[Operator]]] = {**OPERATORS, "transform": TRANSFORMS}


class StoredTensor(NamedTuple):
    """A constant that is a tensor of a file in the store."""

    digest: str
    key: str


class Inline(NamedTuple):
    """A constant that stands in the program."""

    spec: TensorSpec
    data: bytes


class ProgramInput(NamedTuple):
    """What a call brings: -1 along axis 0 of `shape` means any size."""

    name: str
    dtype: int
    shape: tuple[int, ...]

    @property
    def free(self) -> bool:
        """Whether its axis 0 has any size."""
        return bool(self.shape) and self.shape[0] == -1

    def at(self, rows: int) -> TensorSpec:
        """Its spec in a call of so many rows."""
        return TensorSpec(self.dtype, (rows, *self.shape[1:]) if self.free else self.shape)


# What a constant is made of: see also fold.py.
Recipe: TypeAlias = Any


@dataclass(frozen=True, eq=False)
class Step:
    """A node: its operator, and the slots that it reads and writes."""

    name: str
    operator: Operator
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def invalid(self, error: InvalidArgumentError) -> InvalidArgumentError:
        """The node's error as the program's, naming the node."""
        return InvalidArgumentError(f"program: node {self.name}: {error.message}", operator="program", field=self.name)


@dataclass(frozen=True, eq=False)
class Graph:
    """A program without its weights. Slots are numbered: inputs, then constants, then what steps write.

    Attributes:
        steps: in an order in which each reads only what is there.
        outputs: name and slot of each.
        slots: how many there are.
        names: slot of each value.
    """

    inputs: tuple[ProgramInput, ...]
    constants: tuple[tuple[str, Recipe], ...]
    steps: tuple[Step, ...]
    outputs: tuple[tuple[str, int], ...]
    slots: int
    names: Mapping[str, int]

    @property
    def first_constant(self) -> int:
        """Slot of the first constant."""
        return len(self.inputs)


def wrong(field: str, rule: str) -> InvalidArgumentError:
    """An error of the program as a whole."""
    return invalid("program", field, rule)


def check_size(name: str, spec: TensorSpec) -> None:
    """Checks that torch can count a tensor's bytes, also where some of its sizes are 0."""
    if math.prod(max(size, 1) for size in spec.shape) * ITEMSIZES[spec.dtype] > _MOST_BYTES:
        raise wrong(name, f"must have fewer elements, got {list(spec.shape)}")


def graph_of(program: program_pb2.Program) -> Graph:
    """The graph of a message whose constants are all inline or stored.

    Raises:
        InvalidArgumentError: naming the node, input, constant or output that is wrong.
    """
    _check_counts(program)
    names: dict[str, int] = {}
    inputs = tuple(_input(message) for message in program.inputs)
    for program_input in inputs:
        _define(names, program_input.name, "input")
    constants = tuple((message.name, _recipe(message)) for message in program.constants)
    for name, _ in constants:
        _define(names, name, "constant")
    operators = [(node, _operator(node)) for node in program.nodes]
    slots = len(names)
    writes: list[tuple[int, ...]] = []
    for node, operator in operators:
        slots = _define_outputs(names, node.name, operator, slots)
        writes.append(tuple(range(slots - len(operator.outputs), slots)))
    steps = [
        Step(node.name, operator, _inputs(node, operator, names), outputs)
        for (node, operator), outputs in zip(operators, writes, strict=True)
    ]
    return Graph(inputs, constants, _in_order(steps, slots), _outputs(program, names), slots, names)


def _check_counts(program: program_pb2.Program) -> None:
    for field, least, most in (
        ("inputs", 1, MAX_INPUTS),
        ("constants", 0, MAX_CONSTANTS),
        ("nodes", 1, MAX_NODES),
        ("outputs", 1, MAX_OUTPUTS),
    ):
        count = len(getattr(program, field))
        if not least <= count <= most:
            raise wrong(field, f"must be {least} to {most}, got {count}")


def _define(names: dict[str, int], name: str, kind: str, slot: int | None = None) -> None:
    if not 1 <= len(name) <= MAX_NAME:
        raise wrong("name", f"of each {kind} must be 1 to {MAX_NAME} characters, got {len(name)}")
    if name in names:
        raise wrong(name, f"is defined twice, the second time by a {kind}")
    names[name] = len(names) if slot is None else slot


def _define_outputs(names: dict[str, int], node: str, operator: Operator, slot: int) -> int:
    """Names what a node writes, from `slot` on; the next free slot."""
    _define(names, node, "node", slot)
    for index, field in enumerate(operator.outputs):
        name = f"{node}.{field}"
        if name in names:
            raise wrong(name, "is defined twice: it is an output of a node")
        names[name] = slot + index
    return slot + len(operator.outputs)


def _input(message: program_pb2.ProgramInput) -> ProgramInput:
    shape = tuple(message.shape)
    if message.dtype not in DTYPE_NAMES:
        raise wrong(message.name, f"must have a dtype of DataType, got {message.dtype}")
    if len(shape) > MAX_AXES:
        raise wrong(message.name, f"must have at most {MAX_AXES} axes, got {len(shape)}")
    if any(not (-1 if axis == 0 else 0) <= size <= _MOST_SIZE for axis, size in enumerate(shape)):
        raise wrong(message.name, f"must have sizes from 0 to {_MOST_SIZE}, or -1 along axis 0, got {list(shape)}")
    check_size(message.name, TensorSpec(message.dtype, shape))
    return ProgramInput(message.name, message.dtype, shape)


def _recipe(message: program_pb2.Constant) -> Recipe:
    content = message.WhichOneof("content")
    if content == "stored":
        return StoredTensor(message.stored.digest, message.stored.key)
    if content is None or message.tensor.WhichOneof("content") != "data":
        raise wrong(message.name, "must be a stored tensor, or have its data")
    tensor = message.tensor
    spec, data = TensorSpec(tensor.dtype, tuple(tensor.shape)), tensor.data
    if spec.dtype not in DTYPE_NAMES or len(spec.shape) > MAX_AXES or min(spec.shape, default=0) < 0:
        raise wrong(message.name, f"must have a dtype and up to {MAX_AXES} sizes of at least 0, got {list(spec.shape)}")
    if len(data) > MAX_INLINE_BYTES or len(data) != spec.nbytes:
        size = f"{spec.nbytes} bytes for {DTYPE_NAMES[spec.dtype]} {list(spec.shape)} and at most {MAX_INLINE_BYTES}"
        raise wrong(message.name, f"must have {size}, got {len(data)}")
    check_size(message.name, spec)
    return Inline(spec, data)


def _operator(node: program_pb2.Node) -> Operator:
    family = node.WhichOneof("operator")
    message = None if family is None else getattr(node, family)
    name = None if message is None else message.WhichOneof("operator")
    if family is None or message is None or name is None:
        raise InvalidArgumentError(f"program: node {node.name[:MAX_NAME]}: operator is required", field=node.name)
    try:
        operator = _FAMILIES[family][name].from_message(getattr(message, name))
        if isinstance(operator, Transform):
            operator = operator.with_inputs(sum(entry.field == "input" for entry in node.inputs))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"program: node {node.name[:MAX_NAME]}: {error.message}", operator="program", field=node.name
        ) from None
    return operator


def _inputs(node: program_pb2.Node, operator: Operator, names: Mapping[str, int]) -> tuple[int, ...]:
    """The slots that a node reads, one an entry of the operator's inputs; several of one name in their order."""
    slots_by_field: dict[str, deque[int]] = {}
    for entry in node.inputs:
        slot = names.get(entry.value)
        if slot is None:
            raise _node_error(node, f"{entry.field[:MAX_NAME]} is {entry.value[:MAX_NAME]!r}, which is no value")
        slots_by_field.setdefault(entry.field, deque()).append(slot)
    slots = []
    for role in operator.inputs:
        of_field = slots_by_field.get(role.name)
        if of_field:
            slots.append(of_field.popleft())
        elif role.required:
            raise _node_error(node, f"{operator.title}: {role.name} is required")
        else:
            slots.append(ABSENT)
    for field, rest in slots_by_field.items():
        if rest:
            raise _node_error(node, f"{operator.title}: {field[:MAX_NAME]} is not taken, or given too often")
    return tuple(slots)


def _node_error(node: program_pb2.Node, rule: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"program: node {node.name}: {rule}", operator="program", field=node.name)


def _outputs(program: program_pb2.Program, names: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    slots: dict[str, int] = {}
    for output in program.outputs:
        slot = names.get(output.value)
        if slot is None:
            raise wrong(output.name, f"is {output.value[:MAX_NAME]!r}, which is no value")
        if not 1 <= len(output.name) <= MAX_NAME:
            raise wrong("name", f"of each output must be 1 to {MAX_NAME} characters, got {len(output.name)}")
        if output.name in slots:
            raise wrong(output.name, "is an output twice")
        slots[output.name] = slot
    return tuple(slots.items())


def _in_order(steps: list[Step], slots: int) -> tuple[Step, ...]:
    """Kahn's order: of the steps that may run, the one listed first."""
    writer: list[int] = [-1] * slots
    for index, step in enumerate(steps):
        for slot in step.outputs:
            writer[slot] = index
    needs = [{writer[slot] for slot in step.inputs if slot != ABSENT and writer[slot] >= 0} for step in steps]
    readers: list[list[int]] = [[] for _ in steps]
    for index, others in enumerate(needs):
        for other in others:
            readers[other].append(index)
    unmet = [len(others) for others in needs]
    ready = [index for index, count in enumerate(unmet) if not count]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers[index]:
            unmet[reader] -= 1
            if not unmet[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(steps):
        stuck = next(step for step, count in zip(steps, unmet, strict=True) if count)
        raise InvalidArgumentError(
            f"program: node {stuck.name}: stands in a cycle, or behind one", operator="program", field=stuck.name
        )
    return tuple(steps[index] for index in order)


def last_reads(steps: tuple[Step, ...], results: Iterable[int]) -> list[tuple[int, ...]]:
    """For each step the slots that nobody reads after it, results apart: inputs, constants and values alike."""
    live = set(results)
    dead: list[tuple[int, ...]] = []
    for step in reversed(steps):
        slots = {slot for slot in (*step.inputs, *step.outputs) if slot != ABSENT}
        dead.append(tuple(slots - live))
        live |= slots
    dead.reverse()
    return dead
