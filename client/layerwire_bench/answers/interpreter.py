"""Runs a program with plain torch.nn.functional: what its answers should be.

It knows messages and torch; no code of the server and none that makes programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch

from layerwire.v1 import program_pb2
from layerwire_bench.answers.torch_calls import TORCH_DTYPES, Function, torch_call

Tensors: TypeAlias = Mapping[str, torch.Tensor]


class _Step(NamedTuple):
    """A node: its function, the numbers of its inputs and outputs among all values, and of those last needed by it."""

    function: Function
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    last_uses: tuple[int, ...] = ()


class Interpreter:
    """A program made ready: its steps in an order in which they can run, their values in one list.

    Attributes:
        inputs: names of its inputs, in the order of arguments.
        outputs: names of what it returns, in that order.
    """

    def __init__(
        self,
        program: program_pb2.Program,
        weights: Tensors | None = None,
        change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
    ) -> None:
        """Makes its steps.

        Args:
            program: the program.
            weights: its stored constants by their names.
            change: what is done to each constant first.

        Raises:
            KeyError: an operator is unknown, or draws numbers that the server alone knows, or weights are missing.
            ValueError: nodes wait for each other or for what is not there.
        """
        self._numbers: dict[str, int] = {}
        self._values: list[torch.Tensor | None] = []
        self.inputs = tuple(one.name for one in program.inputs)
        for name in self.inputs:
            self._add(None, name)
        for constant in program.constants:
            self._add(change(_constant(constant, weights or {})), constant.name)
        steps = [self._step(node) for node in _in_order(program, self._numbers)]
        self.outputs = tuple(one.name for one in program.outputs)
        self._results = [self._numbers[one.value] for one in program.outputs]
        self._steps = _with_last_uses(steps, self._results)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What it returns, of its inputs in their order."""
        values = [*inputs, *self._values[len(inputs) :]]
        for function, operands, outputs, last_uses in self._steps:
            result = function(*[values[number] for number in operands])
            for number, value in zip(outputs, result if len(outputs) > 1 else (result,), strict=True):
                values[number] = value
            for number in last_uses:
                values[number] = None
        return [values[number] for number in self._results]  # type: ignore[misc]  # every step has run

    def _add(self, value: torch.Tensor | None, *names: str) -> int:
        """The number of a further value, which goes by these names."""
        self._numbers |= dict.fromkeys(names, len(self._values))
        self._values.append(value)
        return len(self._values) - 1

    def _step(self, node: program_pb2.Node) -> _Step:
        operator = getattr(node, node.WhichOneof("operator") or "")
        function, fields = torch_call(operator, [one.field for one in node.inputs])
        outputs = [
            self._add(None, f"{node.name}.{field}", *([node.name] if field == "output" else [])) for field in fields
        ]
        return _Step(function, tuple(self._numbers[one.value] for one in node.inputs), tuple(outputs))


def _with_last_uses(steps: Sequence[_Step], results: Iterable[int]) -> list[_Step]:
    """The steps, each with the values that it is the last to need."""
    needs, backwards = set(results), []
    for step in reversed(steps):
        last = {*step.inputs, *step.outputs} - needs
        needs |= last
        backwards.append(step._replace(last_uses=tuple(last)))
    return backwards[::-1]


def _constant(constant: program_pb2.Constant, weights: Tensors) -> torch.Tensor:
    if constant.HasField("stored") or constant.tensor.name:
        return weights[constant.name]
    tensor = constant.tensor
    dtype, data = TORCH_DTYPES[tensor.dtype], bytearray(tensor.data)
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(tuple(tensor.shape))


def _in_order(program: program_pb2.Program, numbers: Mapping[str, int]) -> Iterable[program_pb2.Node]:
    """Nodes, each after those whose values it uses; `numbers` of values grows meanwhile."""
    rest = list(program.nodes)
    while rest:
        ready = [node for node in rest if all(one.value in numbers for one in node.inputs)]
        if not ready:
            raise ValueError(f"nodes wait for each other or for what is not there: {[one.name for one in rest]}")
        yield from ready
        rest = [node for node in rest if node.name not in numbers]
