"""A program's graph with the outputs that a call wants, and what is known of it at any number of rows.

It knows graphs and operators; nothing of weights' contents, lanes or devices.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple

from layerwire.errors import InvalidArgumentError, invalid
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.errors import OverLimitError
from layerwire_server.operators.operator import Kernel, Specs
from layerwire_server.programs import fold
from layerwire_server.programs.check import (
    CHECKED_ROWS,
    GraphSizes,
    ProgramLimits,
    doubtful_values,
    graph_sizes,
    row_multiples,
)
from layerwire_server.programs.fuse import StepKernels, fused_steps
from layerwire_server.programs.graph import Graph, Step, last_reads

_COSTS = 256


@dataclass(frozen=True)
class Cost:
    """What a call of a program takes and gives.

    Attributes:
        outputs: specs of the outputs.
        operations: floating-point operations.
        work: the same weighed.
        peak_bytes: most bytes of values at one time.
        value_bytes: bytes of all values together, as where none is freed before the end.
    """

    outputs: tuple[TensorSpec, ...]
    operations: int
    work: float
    peak_bytes: int
    value_bytes: int


class Facts(NamedTuple):
    """What a program is checked against."""

    limits: ProgramLimits
    device_type: str


class PlanStep(NamedTuple):
    """A step as it runs: its kernel, slots read and written, slots that are free behind it, whether it looks at data.

    `is_doubtful` says that elements of its inputs are to be checked first.
    """

    step: Step
    kernel: Kernel
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    dead: tuple[int, ...]
    is_doubtful: bool


class Variant:
    """A program's graph with the outputs that a call wants, and what is known of it at any number of rows.

    Attributes:
        graph: what runs.
        is_folded: whether it lacks batch norms that were folded.
        constants: specs of its constants.
        stored_tensors: those of the store that they are made of, each once.
        sizes: the graph at CHECKED_ROWS.
        alone_because: why calls can't be joined along axis 0; empty if they can.
        plan: its steps, each by the kernel that alone would run it.
        checked_once: steps whose elements to be checked are all weights'.
    """

    def __init__(self, graph: Graph, constants: tuple[TensorSpec, ...], facts: Facts, *, is_folded: bool) -> None:
        self.is_folded = is_folded
        self.constants = constants
        self.stored_tensors = tuple(
            dict.fromkeys(tensor for _, recipe in graph.constants for tensor in fold.needs(recipe))
        )
        self._facts = facts
        self._costs: OrderedDict[tuple[TensorSpec, ...], Cost | InvalidArgumentError] = OrderedDict()
        self.graph = graph
        first, second = (self._sizes_at([each.at(rows) for each in graph.inputs]) for rows in CHECKED_ROWS)
        self.sizes = first, second
        self._multiples = row_multiples(graph, first)
        self._doubtful = doubtful_values(graph, first)
        self.checked_once = [step for step in graph.steps if self._doubtful.get(step.name) is False]
        self._set_outputs(graph.outputs)

    def with_outputs(self, outputs: tuple[tuple[str, int], ...]) -> Variant:
        """The same, returning other values; nothing is worked out anew but what concerns them."""
        other = copy(self)
        other._costs = OrderedDict()  # noqa: SLF001  # it is one of us
        other._set_outputs(outputs)  # noqa: SLF001
        return other

    @property
    def batched(self) -> bool:
        """Whether calls may be joined along axis 0."""
        return not self.alone_because

    def _set_outputs(self, outputs: tuple[tuple[str, int], ...]) -> None:
        self.graph = replace(self.graph, outputs=outputs)
        first, second = self.sizes
        self._outputs = _output_specs(self.graph, first)
        self.multiples: tuple[int, ...] = ()
        if isinstance(self._multiples, str):
            self.alone_because = self._multiples
        else:
            self.multiples = tuple(self._multiples[slot] for _, slot in outputs)
            self.alone_because = self._disagreement(_output_specs(self.graph, second))
        self.plan = self._plan([(step, step.operator.run) for step in self.graph.steps])

    def other_plans(self) -> dict[str, list[PlanStep]]:
        """Plans that give the same but for rounding, by name; which is the fastest depends on machine and sizes."""
        results = frozenset(slot for _, slot in self.graph.outputs)
        weights = dict(enumerate(self.constants, self.graph.first_constant))
        return {name: self._plan(steps) for name, steps in fused_steps(self.graph.steps, results, weights).items()}

    def _plan(self, steps: StepKernels) -> list[PlanStep]:
        results = {slot for _, slot in self.graph.outputs}
        dead = last_reads(tuple(step for step, _ in steps), results)
        return [
            PlanStep(step, kernel, step.inputs, step.outputs, slots, self._doubtful.get(step.name, False))
            for (step, kernel), slots in zip(steps, dead, strict=True)
        ]

    def cost(self, inputs: tuple[TensorSpec, ...]) -> Cost:
        """What a call with these inputs takes.

        Raises:
            InvalidArgumentError: it can't run, or costs too much.
        """
        rows = self._rows(inputs)
        if rows:
            return self._cost_of_rows(rows)
        cost = self._costs.get(inputs)
        if cost is None:
            cost = self._costs[inputs] = self._cost_at(inputs)
            if len(self._costs) > _COSTS:
                self._costs.popitem(last=False)
        if isinstance(cost, InvalidArgumentError):
            raise cost
        return cost

    def _cost_at(self, inputs: tuple[TensorSpec, ...]) -> Cost | InvalidArgumentError:
        try:
            size = self._sizes_at(inputs)
        except InvalidArgumentError as error:
            return error
        operations = sum(size.operations)
        return Cost(_output_specs(self.graph, size), operations, size.work, size.peak_bytes, size.value_bytes)

    def is_known(self, inputs: tuple[TensorSpec, ...]) -> bool:
        """Whether `cost` has the answer at hand; else it takes up to 0.1 ms a node."""
        return bool(self._rows(inputs)) or inputs in self._costs

    def _rows(self, inputs: tuple[TensorSpec, ...]) -> int:
        """The rows of a call that may be joined with others; 0 if it has none, or can't. Inputs may be unchecked."""
        return inputs[0].shape[0] if self.batched and inputs[0].shape else 0

    def learn(self, inputs: tuple[TensorSpec, ...]) -> None:
        """Makes inputs known; for any thread. What is wrong with them `cost` tells."""
        with contextlib.suppress(InvalidArgumentError):
            self.cost(inputs)

    def all_bytes(self, inputs: Specs) -> int:
        """Bytes of all values together, as where none is freed before the end; raises as `cost`."""
        return self.cost(tuple(spec for spec in inputs if spec is not None)).value_bytes

    def _cost_of_rows(self, rows: int) -> Cost:
        first, second = self.sizes
        outputs = tuple(
            TensorSpec(spec.dtype, (rows * multiple, *spec.shape[1:]))
            for spec, multiple in zip(self._outputs, self.multiples, strict=True)
        )
        peak = _at(rows, first.peak_bytes, second.peak_bytes) + sum(spec.nbytes for spec in outputs)
        operations = _at(rows, sum(first.operations), sum(second.operations))
        values = _at(rows, first.value_bytes, second.value_bytes)
        cost = Cost(outputs, int(operations), _at(rows, first.work, second.work), int(peak), int(values))
        self._check(rows, cost)
        return cost

    def _check(self, rows: int, cost: Cost) -> None:
        limits = self._facts.limits
        for reason, value, limit, flag in (
            ("program_bytes", cost.peak_bytes, limits.peak_bytes, "--max-program-bytes"),
            ("output_bytes", sum(spec.nbytes for spec in cost.outputs), limits.value_bytes, "--max-output-bytes"),
            ("operations", cost.work, limits.operations, "--max-call-operations"),
        ):
            if value > limit:
                rule = f"of {rows} rows makes {value:.4g}, over the server's {flag} {limit:.4g}"
                raise OverLimitError(reason, "run", self.graph.inputs[0].name, rule)

    def _sizes_at(self, inputs: Sequence[TensorSpec]) -> GraphSizes:
        return graph_sizes(self.graph, inputs, self.constants, self._facts.limits, self._facts.device_type)

    def _disagreement(self, second: tuple[TensorSpec, ...]) -> str:
        """Why calls can't be joined: an output without rows, or a size that belies what the rules say of rows."""
        for (name, _), one, two, multiple in zip(
            self.graph.outputs, self._outputs, second, self.multiples, strict=True
        ):
            if not multiple:
                return f"output {name} doesn't depend on the inputs"
            expected = tuple(rows * multiple for rows in CHECKED_ROWS)
            if one.shape[1:] != two.shape[1:] or (one.shape[0], two.shape[0]) != expected:
                return f"output {name} doesn't grow with axis 0 of the inputs"
        return ""


def _output_specs(graph: Graph, size: GraphSizes) -> tuple[TensorSpec, ...]:
    specs = []
    for name, slot in graph.outputs:
        spec = size.specs[slot]
        if spec is None:
            raise invalid("program", name, "is a value that isn't given")
        specs.append(spec)
    return tuple(specs)


def _at(rows: int, first: float, second: float) -> float:
    """A line through what was found at both CHECKED_ROWS."""
    return first + (rows - CHECKED_ROWS[0]) * (second - first) / (CHECKED_ROWS[1] - CHECKED_ROWS[0])
