"""A program that passed its checks: from its message to the operators that calls of it are.

It knows graphs and how they are folded; nothing of stores, lanes or devices.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

from layerwire.errors import invalid
from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.programs import fold
from layerwire_server.programs.graph import MAX_NAME, Graph, Recipe, check_size, graph_of
from layerwire_server.programs.run import Run
from layerwire_server.programs.variant import Facts, Variant

MAX_INTERMEDIATES = 64
_OPERATORS = 64


class Program:
    """A program that passed its checks.

    Attributes:
        digest: sha256 of its message.
        message: it, all constants inline or stored.
        graph: what it says.
        plain: it with every node in its place.
        variant: what runs when no intermediates are wanted.
        folded_into: batch norms that don't run, and the node each went into.

    Args:
        spec_of: gives the spec of a stored or inline constant.
        facts: what it is checked against.

    Raises:
        InvalidArgumentError: naming the node that is wrong.
    """

    def __init__(
        self, digest: str, message: program_pb2.Program, spec_of: Callable[[Recipe], TensorSpec], facts: Facts
    ) -> None:
        self.digest = digest
        self.message = message
        self.graph = graph_of(message)
        self.plain = Variant(self.graph, _constants(self.graph, spec_of), facts, is_folded=False)
        self.folded_into: Mapping[str, str] = {}
        self.variant = self.plain
        if not message.HasField("fold_batch_norm") or message.fold_batch_norm:
            graph, self.folded_into = fold.fold_batch_norms(self.graph, self.plain.sizes[0])
            if self.folded_into:
                self.variant = Variant(graph, _constants(graph, spec_of), facts, is_folded=True)
        self._operators: OrderedDict[tuple[int, tuple[str, ...]], Run] = OrderedDict()

    def operator(self, version: int, intermediates: tuple[str, ...]) -> Run:
        """The operator that a call is which wants these values besides the outputs.

        Raises:
            InvalidArgumentError: there is no such value, or too many are asked for.
        """
        key = version, intermediates
        operator = self._operators.get(key)
        if operator is None:
            names = self.variant.graph.names
            base = self.variant if all(name in names for name in intermediates) else self.plain
            variant = self._variant_with(base, intermediates)
            operator = self._operators[key] = Run(self.digest, version, intermediates, variant)
            if len(self._operators) > _OPERATORS:
                self._operators.popitem(last=False)
        return operator

    def plain_operator(self, version: int, intermediates: tuple[str, ...] = ()) -> Run:
        """The operator with every node and constant in its place, for gradients; raises as `operator` does."""
        return Run(self.digest, version, ("", *intermediates), self._variant_with(self.plain, intermediates))

    def _variant_with(self, base: Variant, intermediates: tuple[str, ...]) -> Variant:
        if not intermediates:
            return base
        if len(intermediates) > MAX_INTERMEDIATES or len(set(intermediates)) < len(intermediates):
            rule = f"must be up to {MAX_INTERMEDIATES}, each once, got {len(intermediates)}"
            raise invalid("run", "intermediates", rule)
        output_names = {name for name, _ in self.graph.outputs}
        for name in intermediates:
            if name not in self.graph.names or name in output_names:
                raise invalid("run", "intermediates", f"must be values that aren't outputs, got {name[:MAX_NAME]!r}")
        values = tuple((name, base.graph.names[name]) for name in intermediates)
        return base.with_outputs(base.graph.outputs + values)


def _constants(graph: Graph, spec_of: Callable[[Recipe], TensorSpec]) -> tuple[TensorSpec, ...]:
    specs = tuple(fold.spec_of(recipe, spec_of) for _, recipe in graph.constants)
    for (name, _), spec in zip(graph.constants, specs, strict=True):
        check_size(name, spec)
    return specs
