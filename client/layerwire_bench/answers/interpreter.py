"""Runs a program with plain torch.nn.functional: what its answers should be, for the load tester and for tests.

It knows messages and torch; no code of the server and none that makes programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch

from layerwire.v1 import program_pb2
from layerwire_bench.answers.torch_calls import DTYPES, Call, bound

Tensors: TypeAlias = Mapping[str, torch.Tensor]


class _Step(NamedTuple):
    """A node: its call, the numbers of the values it takes and makes, and of those that nobody needs after it."""

    call: Call
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    done_with: tuple[int, ...] = ()


class Program:
    """A program made ready: its steps in an order in which they can run, their values in one list.

    Attributes:
        inputs: names of its inputs, in the order of arguments.
        outputs: names of what it returns, in that order.
    """

    def __init__(
        self,
        program: program_pb2.Program,
        weights: Tensors | None = None,
        intermediates: Iterable[str] = (),
        change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
    ) -> None:
        """Makes its steps.

        Args:
            program: the program.
            weights: its stored constants by their names.
            intermediates: names of values to return besides the outputs.
            change: what is done to each constant first.

        Raises:
            KeyError: an operator is unknown, or draws numbers that the server alone knows, or weights are missing.
            ValueError: nodes wait for each other or for what is not there.
        """
        self._numbers: dict[str, int] = {}
        self._values: list[torch.Tensor | None] = []
        self.inputs = tuple(one.name for one in program.inputs)
        for name in self.inputs:
            self._keep(None, name)
        for constant in program.constants:
            self._keep(change(_constant(constant, weights or {})), constant.name)
        steps = [self._step(node) for node in _ordered(program, self._numbers)]
        wanted = {one.name: one.value for one in program.outputs} | {name: name for name in intermediates}
        self.outputs = tuple(wanted)
        self._wanted = [self._numbers[value] for value in wanted.values()]
        self._steps = _forgetting(steps, self._wanted)

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What it returns, of its inputs in their order."""
        values = [*inputs, *self._values[len(inputs) :]]
        for call, used, made, done_with in self._steps:
            found = call(*[values[number] for number in used])
            if len(made) == 1:
                values[made[0]] = found
            else:
                for number, value in zip(made, found, strict=True):
                    values[number] = value
            for number in done_with:
                values[number] = None
        return [values[number] for number in self._wanted]  # type: ignore[misc]  # every step has run

    def _keep(self, value: torch.Tensor | None, *names: str) -> int:
        """The number of a further value, which goes by these names."""
        self._numbers |= dict.fromkeys(names, len(self._values))
        self._values.append(value)
        return len(self._values) - 1

    def _step(self, node: program_pb2.Node) -> _Step:
        operator = getattr(node, node.WhichOneof("operator") or "")
        call, fields = bound(operator, [one.field for one in node.inputs])
        outputs = [
            self._keep(None, f"{node.name}.{field}", *([node.name] if field == "output" else [])) for field in fields
        ]
        return _Step(call, tuple(self._numbers[one.value] for one in node.inputs), tuple(outputs))


def _forgetting(steps: Sequence[_Step], wanted: Iterable[int]) -> list[_Step]:
    """The steps, each with the values that it is the last to need."""
    needed, forgetting = set(wanted), []
    for step in reversed(steps):
        last = {*step.inputs, *step.outputs} - needed
        needed |= last
        forgetting.append(step._replace(done_with=tuple(last)))
    return forgetting[::-1]


def run(
    program: program_pb2.Program,
    inputs: Tensors,
    weights: Tensors | None = None,
    intermediates: Iterable[str] = (),
) -> dict[str, torch.Tensor]:
    """The outputs by name, and the intermediates by their values' names.

    Args:
        program: the program.
        inputs: tensors by name.
        weights: those of stored constants, by their keys in the file.
        intermediates: names of values to return besides.

    Raises:
        KeyError, ValueError: as `Program`, or inputs aren't the program's.
    """
    by_constant = {one.name: (weights or {})[one.stored.key] for one in program.constants if one.HasField("stored")}
    ready = Program(program, by_constant, intermediates)
    if set(inputs) != set(ready.inputs):
        raise ValueError(f"inputs must be {', '.join(ready.inputs)}, got {', '.join(inputs) or 'none'}")
    return dict(zip(ready.outputs, ready([inputs[name] for name in ready.inputs]), strict=True))


def _constant(constant: program_pb2.Constant, weights: Tensors) -> torch.Tensor:
    if constant.HasField("stored") or constant.tensor.name:
        return weights[constant.name]
    tensor = constant.tensor
    dtype, data = DTYPES[tensor.dtype], bytearray(tensor.data)
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(tuple(tensor.shape))


def _ordered(program: program_pb2.Program, known: Mapping[str, int]) -> Iterable[program_pb2.Node]:
    """Nodes, each after those whose values it uses; `known` grows while they are taken."""
    waiting = list(program.nodes)
    while waiting:
        ready = [node for node in waiting if all(one.value in known for one in node.inputs)]
        if not ready:
            raise ValueError(f"nodes wait for each other or for what is not there: {[one.name for one in waiting]}")
        yield from ready
        waiting = [node for node in waiting if node.name not in known]
