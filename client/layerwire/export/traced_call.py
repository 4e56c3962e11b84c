"""One call of the traced graph, as the tables of mappings see it.

It knows the graph that grows; neither how calls are found nor any particular operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from layerwire.export.graph import Graph, OperatorMessage, Size, Step, Value
from layerwire.export.refusal import LoweringError
from layerwire.export.weights import wire_dtype
from layerwire.v1 import program_pb2


@dataclass(frozen=True)
class TracedCall:
    """A call with its arguments by their names in torch's schema.

    Attributes:
        graph: what steps and constants are added to.
        path: of the module that makes it.
        is_leaf: whether that module has no submodules.
        module: that module.
        arguments: Values where torch has tensors.
        results: what it gives, as tensors without elements.
        used_results: positions of results that something uses.
        broadcasts: whether all that uses it broadcasts its operands.
    """

    graph: Graph
    path: str
    is_leaf: bool
    module: Any
    arguments: Mapping[str, Any]
    results: Sequence[Any]
    used_results: frozenset[int]
    broadcasts: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An argument that not every version or overload of the call has."""
        argument = self.arguments.get(name)
        return default if argument is None else argument

    def value(self, name: str) -> Value:
        """An argument that is a tensor."""
        argument = self.arguments[name]
        if not isinstance(argument, Value):
            raise LoweringError(f"{name} is not a tensor")
        return argument

    def sizes(self, name: str) -> list[int]:
        """An argument that is a number or several, none of them depending on the batch."""
        argument = self.get(name, [])
        numbers = list(argument) if isinstance(argument, (list, tuple)) else [argument]
        if not all(isinstance(number, int) for number in numbers):
            raise LoweringError(f"{name} depends on the batch size")
        return numbers

    @property
    def shape(self) -> tuple[Size, ...]:
        """Of the first result."""
        return shape_of(self.results[0])

    @property
    def dtype(self) -> int:
        """Of the first result, as on the wire."""
        return wire_dtype(self.results[0].dtype)

    def axis(self, name: str, ndim: int) -> int:
        """An argument that is an axis, counted from the start."""
        dim: int = self[name]
        return dim + ndim if dim < 0 else dim

    def emit(self, operator: OperatorMessage, outputs: Sequence[str] = ("output",), **inputs: Value | None) -> Value:
        """Adds a node and gives its first output; inputs that are None are left out."""
        fields_and_values = [(field, value) for field, value in inputs.items() if value is not None]
        return self._add(operator, fields_and_values, outputs)[0]

    def emit_all(self, operator: OperatorMessage, outputs: Sequence[str], **inputs: Value | None) -> list[Value]:
        """As emit, with all outputs."""
        return self._add(operator, [(field, value) for field, value in inputs.items() if value is not None], outputs)

    def transform(
        self,
        value: Value | Sequence[Value],
        other: Value | None = None,
        shape: Sequence[Size] | None = None,
        **operator: Any,
    ) -> Value:
        """Adds a node of TransformOperator, which is its only other keyword.

        `shape` is that of what it gives, the call's own if None.
        """
        inputs = [value] if isinstance(value, Value) else value
        fields_and_values = [("input", one) for one in inputs] + ([("other", other)] if other is not None else [])
        result = self._add(program_pb2.TransformOperator(**operator), fields_and_values, ("output",))[0]
        result.shape = self.shape if shape is None else tuple(shape)
        return result

    def _add(
        self, operator: OperatorMessage, inputs: Sequence[tuple[str, Value]], outputs: Sequence[str]
    ) -> list[Value]:
        step = Step(self.path, self.is_leaf, operator, inputs)
        for position, output in enumerate(outputs):
            result = self.results[min(position, len(self.results) - 1)]
            step.outputs[output] = Value(wire_dtype(result.dtype), shape_of(result), step=step)
        self.graph.add_step(step)
        return list(step.outputs.values())


Outputs: TypeAlias = Value | list[Value | None]
Lowering: TypeAlias = Callable[[TracedCall], Outputs]


def shape_of(tensor: Any) -> tuple[Size, ...]:
    """Sizes, those that depend on the batch as text: to compare them as torch does would tie them to a number."""
    return tuple(size if isinstance(size, int) else str(size) for size in tensor.shape)
