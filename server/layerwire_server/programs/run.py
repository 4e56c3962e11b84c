"""`Run`, the operator that a call of a program is.

It knows variants and operators; nothing of stores, lanes or devices. Weights come to `run` as one bound tuple, so that
plans and lanes, which keep operators, keep no weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import torch

from layerwire.errors import InvalidArgumentError
from layerwire.wire.dtypes import DTYPE_NAMES, TensorSpec
from layerwire_server.operators.operator import Input, Kernel, Merge, Operator, Placement, Specs
from layerwire_server.programs.graph import ABSENT, ProgramInput, Step
from layerwire_server.programs.variant import Cost, PlanStep, Variant

WEIGHTS = Input("weights", required=False, shared=True)


@dataclass(frozen=True)
class Run(Operator):
    """A program as an operator: its inputs are the program's, then the bound weights. Equal by digest and outputs."""

    name = "run"
    family = "run"
    alone_if_deterministic = True  # its kernels round by the number of rows
    kernels_are_exact = False
    is_parallel = True

    digest: str
    version: int
    intermediates: tuple[str, ...]
    variant: Variant = field(compare=False, repr=False)

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """Not used: programs are loaded, not made of one message."""
        raise NotImplementedError(type(message).__name__)

    @property
    def inputs(self) -> tuple[Input, ...]:  # type: ignore[override]
        """The program's inputs, then its weights."""
        return (*(Input(program_input.name) for program_input in self.variant.graph.inputs), WEIGHTS)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the program's outputs, then of the intermediates."""
        return tuple(name for name, _ in self.variant.graph.outputs)

    @property
    def parts(self) -> int:
        """See Operator."""
        return len(self.variant.graph.steps)

    def dtypes_on(self, device_type: str) -> frozenset[int]:  # nodes were checked for the device
        """All: `check` knows each input's."""
        return frozenset(DTYPE_NAMES)

    def check(self, specs: Specs) -> None:
        """See Operator."""
        rows: int | None = None
        for program_input, spec in zip(self.variant.graph.inputs, specs, strict=False):
            assert spec is not None
            self._check_input(program_input, spec)
            if program_input.free:
                if rows is not None and spec.shape[0] != rows:
                    rule = f"must have the size along axis 0 of the inputs before it, {rows}, got {spec.shape[0]}"
                    raise self.invalid(program_input.name, rule)
                rows = spec.shape[0]

    def _check_input(self, program_input: ProgramInput, spec: TensorSpec) -> None:
        if spec.dtype != program_input.dtype:
            rule = f"must have dtype {DTYPE_NAMES[program_input.dtype]}, got {DTYPE_NAMES[spec.dtype]}"
            raise self.invalid(program_input.name, rule)
        start = 1 if program_input.free else 0
        if len(spec.shape) != len(program_input.shape) or spec.shape[start:] != program_input.shape[start:]:
            raise self.invalid(
                program_input.name, f"must have shape {list(program_input.shape)}, got {list(spec.shape)}"
            )

    def cost(self, specs: Specs) -> Cost:
        """What a call takes; its specs passed `check`."""
        return self.variant.cost(tuple(spec for spec in specs if spec is not None))

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        assert specs[0] is not None
        joins = self.variant.batched and specs[0].shape[0] > 0
        return Placement(Merge.ROWS if joins else Merge.ALONE, self, 1)

    def infer(self, specs: Specs) -> tuple[TensorSpec, ...]:
        """See Operator."""
        return self.cost(specs).outputs

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return self.cost(specs).operations

    def work(self, specs: Specs, operations: int) -> float:
        """See Operator."""
        return self.cost(specs).work

    def output_bytes_bound(self, specs: Specs) -> int:
        """See Operator."""
        return sum(spec.nbytes for spec in self.cost(specs).outputs)

    def footprint_bytes(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return self.cost(specs).peak_bytes

    def run(self, *tensors: Any) -> tuple[torch.Tensor, ...]:
        """See Operator; the last argument is the tuple of bound weights."""
        return self._run(self.variant.plan, *tensors)

    def kernels(self) -> Mapping[str, Kernel]:
        """See Operator."""
        return {name: partial(self._run, plan) for name, plan in self.variant.other_plans().items()}

    def _run(self, plan: Sequence[PlanStep], *tensors: Any) -> tuple[torch.Tensor, ...]:
        *inputs, weights = tensors
        graph = self.variant.graph
        values: list[torch.Tensor | None] = [*inputs, *weights, *[None] * (graph.slots - len(inputs) - len(weights))]
        for step, kernel, reads, writes, dead, is_doubtful in plan:
            arguments = [None if slot == ABSENT else values[slot] for slot in reads]
            if is_doubtful:
                check_values(step, arguments)
            for slot, value in zip(writes, kernel(*arguments), strict=False):
                values[slot] = value
            del arguments
            for slot in dead:
                values[slot] = None
        return tuple(values[slot] for _, slot in graph.outputs)  # type: ignore[misc]  # outputs are there


def check_values(step: Step, tensors: Sequence[torch.Tensor | None]) -> None:
    """The operator's check of its inputs' elements; raises InvalidArgumentError naming the node."""
    try:
        step.operator.check_values(tuple(tensors))
    except InvalidArgumentError as error:
        raise step.invalid(error) from None
