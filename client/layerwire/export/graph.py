"""The program while it grows: values, constants and steps, which get their names when all are known.

It knows messages and constants' tensors; not where they come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from layerwire.export.names import Names
from layerwire.export.refusal import LoweringError
from layerwire.export.weights import inline, wire_dtype
from layerwire.v1 import operators_pb2, program_pb2, tensor_pb2

OperatorMessage: TypeAlias = (
    operators_pb2.PoolOperator
    | operators_pb2.UnpoolOperator
    | operators_pb2.LinearOperator
    | operators_pb2.ActivateOperator
    | operators_pb2.ConvolveOperator
    | operators_pb2.NormalizeOperator
    | program_pb2.TransformOperator
)
Size: TypeAlias = int | str  # a number, or the text of an expression of the free batch size

# The field of Node that takes it.
_FAMILIES: dict[type[OperatorMessage], str] = {
    operators_pb2.PoolOperator: "pool",
    operators_pb2.UnpoolOperator: "unpool",
    operators_pb2.LinearOperator: "linear",
    operators_pb2.ActivateOperator: "activate",
    operators_pb2.ConvolveOperator: "convolve",
    operators_pb2.NormalizeOperator: "normalize",
    program_pb2.TransformOperator: "transform",
}
# As program.proto has them.
_LEAST = {"inputs": 1, "constants": 0, "nodes": 1, "outputs": 1}
_MOST = {"inputs": 64, "constants": 8192, "nodes": 4096, "outputs": 64}


@dataclass(eq=False)
class Value:
    """What flows between steps: of an input, of a constant (it has a tensor), or of a step."""

    dtype: int
    shape: tuple[Size, ...]
    name: str = ""
    step: Step | None = None
    tensor: Any = None  # a constant's torch.Tensor
    inline: bool = False  # whether the constant's elements stand in the program


@dataclass(eq=False)
class Step:
    """A node before it has its name: the module's path, whether that has submodules, operator, inputs, outputs."""

    path: str
    is_leaf: bool
    operator: OperatorMessage
    inputs: Sequence[tuple[str, Value]]
    outputs: dict[str, Value] = field(default_factory=dict)

    @property
    def function(self) -> str:
        """The operator by its name in torch, such as "conv2d"."""
        name = self.operator.WhichOneof("operator")
        assert name is not None
        dims = getattr(getattr(self.operator, name), "spatial_dims", 0)
        return f"{name}{dims}d" if dims else name


class Graph:
    """A program in the making."""

    def __init__(self) -> None:
        self._inputs: list[Value] = []
        self._constants: dict[Any, Value] = {}
        self._steps: list[Step] = []
        self._names = Names()

    def add_input(self, name: str, dtype: int, shape: tuple[Size, ...]) -> Value:
        """A program input."""
        value = Value(dtype, shape, self._names.claim(name))
        self._inputs.append(value)
        return value

    def add_constant(self, name: str, tensor: Any) -> Value:
        """A constant that is stored; tensors over the same memory are one, by the first name.

        Raises:
            LoweringError: the dtype has no place on the wire, or there are no elements.
        """
        dtype = wire_dtype(tensor.dtype)
        if tensor.device.type == "meta":
            raise LoweringError(f"{name} is on the meta device, without elements")
        place = (tensor.data_ptr(), dtype, tuple(tensor.shape), tensor.stride(), str(tensor.device))
        return self._constants.setdefault(place, Value(dtype, tuple(tensor.shape), name, tensor=tensor))

    def add_scalar(self, tensor: Any) -> Value:
        """A constant without axes, whose element stands in the program; equal ones are one."""
        dtype, number = wire_dtype(tensor.dtype), tensor.item()
        value = Value(dtype, (), f"scalar_{number:g}", tensor=tensor, inline=True)
        return self._constants.setdefault(("scalar", dtype, repr(number)), value)

    def add_step(self, step: Step) -> None:
        """A node; its inputs were made before."""
        self._steps.append(step)

    def build(self, outputs: Sequence[tuple[str, Value]]) -> tuple[program_pb2.Program, dict[str, Any]]:
        """The program, and the tensors to store by key; what no output needs is left out.

        Raises:
            LoweringError: more nodes, constants, inputs or outputs than a program may have.
        """
        outputs = [(name, value if value.step else self._identity(value)) for name, value in outputs]
        steps, constants = self._ancestors([value for _, value in outputs])
        counts = {
            "inputs": len(self._inputs),
            "constants": len(constants),
            "nodes": len(steps),
            "outputs": len(outputs),
        }
        for what, count in counts.items():
            if not _LEAST[what] <= count <= _MOST[what]:
                raise LoweringError(f"{count} {what}, a program has {_LEAST[what]} to {_MOST[what]}")
        for value in constants:
            value.name = self._names.claim(value.name)
        _name(steps, self._names)
        program = program_pb2.Program(
            inputs=[_program_input(value) for value in self._inputs],
            constants=[_constant(value) for value in constants],
            nodes=[_node(step) for step in steps],
            outputs=[program_pb2.ProgramOutput(name=name, value=value.name) for name, value in outputs],
        )
        return program, {value.name: value.tensor for value in constants if not value.inline}

    def _identity(self, value: Value) -> Value:
        """An input or a constant that is an output too: a program has a node at least."""
        step = Step("", False, program_pb2.TransformOperator(identity={}), [("input", value)])
        step.outputs["output"] = Value(value.dtype, value.shape, step=step)
        self.add_step(step)
        return step.outputs["output"]

    def _ancestors(self, results: Sequence[Value]) -> tuple[list[Step], list[Value]]:
        """Steps and constants that the values come from, in the order they were added."""
        values = set(results)
        steps = []
        for step in reversed(self._steps):
            if not values.isdisjoint(step.outputs.values()):
                steps.append(step)
                values.update(value for _, value in step.inputs)
        return steps[::-1], [value for value in self._constants.values() if value in values]


def _name(steps: Sequence[Step], names: Names) -> None:
    """Gives nodes their module's path, and the function's name behind it where that isn't one to one."""
    counts = Counter(step.path for step in steps)
    for step in steps:
        alone = step.is_leaf and step.path and counts[step.path] == 1
        suggestion = step.path if alone else f"{step.path}.{step.function}".lstrip(".")
        name = names.claim(suggestion, step.outputs)
        for position, (output, value) in enumerate(step.outputs.items()):
            value.name = f"{name}.{output}" if position else name


def _node(step: Step) -> program_pb2.Node:
    inputs = [program_pb2.NodeInput(field=field, value=value.name) for field, value in step.inputs]
    node = program_pb2.Node(name=next(iter(step.outputs.values())).name, inputs=inputs)
    getattr(node, _FAMILIES[type(step.operator)]).CopyFrom(step.operator)
    return node


def _program_input(value: Value) -> program_pb2.ProgramInput:
    shape = [size if isinstance(size, int) else -1 for size in value.shape]
    return program_pb2.ProgramInput(name=value.name, dtype=tensor_pb2.DataType.Name(value.dtype), shape=shape)


def _constant(value: Value) -> program_pb2.Constant:
    if value.inline:
        return program_pb2.Constant(name=value.name, tensor=inline(value.tensor))
    return program_pb2.Constant(name=value.name, stored=program_pb2.StoredTensor(key=value.name))
