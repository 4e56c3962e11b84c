"""From torch's graph to a program: each call by the tables of mappings, what has constant inputs worked out at once.

It knows torch's graphs; no operator in particular.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from layerwire.export import nodes
from layerwire.export.graph import Graph, Value
from layerwire.export.lowerings.activations import ACTIVATIONS
from layerwire.export.lowerings.arithmetic import ARITHMETIC
from layerwire.export.lowerings.arrangements import ARRANGEMENTS
from layerwire.export.lowerings.composites import COMPOSITES, Parts
from layerwire.export.lowerings.convolutions import CONVOLUTIONS
from layerwire.export.lowerings.normalizations import NORMALIZATIONS
from layerwire.export.lowerings.pools import POOLS
from layerwire.export.refusal import LoweringError, UnsupportedCall
from layerwire.export.trace import Trace, source_line
from layerwire.export.traced_call import Lowering, TracedCall, shape_of
from layerwire.export.weights import wire_dtype

LOWERINGS: dict[str, Lowering] = {
    **ACTIVATIONS,
    **ARITHMETIC,
    **ARRANGEMENTS,
    **CONVOLUTIONS,
    **NORMALIZATIONS,
    **POOLS,
}
_BROADCASTING = re.compile(r"aten\.(add|sub|mul|div|rsub)\.")


class Translation:
    """A traced module as a program.

    Attributes:
        graph: the program in the making.
        outputs: for each leaf of what the module gives, its Value, or what it is if it's no tensor.
        unsupported_calls: those that have no counterpart.
    """

    def __init__(self, trace: Trace) -> None:
        self.graph = Graph()
        self.outputs: list[Any] = []
        self.unsupported_calls: list[UnsupportedCall] = []
        self._module = trace.module
        self._program = trace.exported_program
        self._values: dict[Any, Any] = {}  # torch.fx.Node -> Value, several, or a number
        self._broken: set[Any] = set()  # nodes that were refused, or need such
        self._walk(list(trace.exported_program.graph.nodes))

    def _walk(self, all_nodes: Sequence[Any]) -> None:
        placeholders = [node for node in all_nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, self._program.graph_signature.input_specs, strict=True):
            self._placeholder(node, spec)
        # Nodes that nobody uses are assertions.
        calls = [node for node in all_nodes if node.op == "call_function" and node.users]
        for (_, function), group in groupby(calls, key=nodes.function):
            parts = list(group)
            if not (function in COMPOSITES and self._composite(function, parts)):
                for node in parts:
                    self._call(node)
        self._results({node.name: node for node in all_nodes})

    def _placeholder(self, node: Any, spec: Any) -> None:
        try:
            if spec.kind.name == "USER_INPUT":
                example = node.meta["val"]
                self._values[node] = self.graph.add_input(node.name, wire_dtype(example.dtype), shape_of(example))
            elif node.users:
                self._values[node] = self.graph.add_constant(spec.target, self._tensor(spec.target))
        except LoweringError as error:
            target = spec.target or node.name
            self._break(node)
            self.unsupported_calls.append(UnsupportedCall(target.rpartition(".")[0], target, reason=str(error)))

    def _tensor(self, target: str) -> Any:
        for store in (self._program.state_dict, self._program.constants):
            if target in store and hasattr(store[target], "data_ptr"):
                return store[target].detach()
        raise LoweringError("not a tensor")

    def _call(self, node: Any) -> None:
        """Maps one node, or notes why it can't be."""
        if not nodes.results(node):
            self._values[node] = node.meta.get("val")  # a number, such as the batch size
            return
        try:
            self._values[node] = self._item(node) if nodes.is_item(node) else self._lower(node)
        except LoweringError as error:
            # What goes wrong behind a refused call may be its fault; that there is no operator is not.
            mappable = nodes.is_item(node) or str(node.target) in LOWERINGS
            if not (mappable and self._broken.intersection(node.all_input_nodes)):
                self._refuse(node, str(error))
            self._break(node)

    def _item(self, node: Any) -> Value:
        source, position = node.args
        value = self._values[source][position]
        if not isinstance(value, Value):
            raise LoweringError(f"result {position} is not there")
        return value

    def _lower(self, node: Any) -> Any:
        if not hasattr(node.target, "_schema"):
            raise LoweringError("")
        arguments = nodes.arguments(node, self._values.get)
        leaves = list(_leaves(arguments.values()))
        constants = [leaf for leaf in leaves if isinstance(leaf, Value)]
        if all(value.tensor is not None for value in constants) and not _depends_on_batch(leaves, node):
            return self._constant_result(node)
        if str(node.target) not in LOWERINGS:
            raise LoweringError("")
        return LOWERINGS[str(node.target)](self._traced_call(node, arguments))

    def _traced_call(self, node: Any, arguments: Mapping[str, Any]) -> TracedCall:
        path = nodes.path(node)
        module = self._module.get_submodule(path)
        return TracedCall(
            graph=self.graph,
            path=path,
            is_leaf=next(module.children(), None) is None,
            module=module,
            arguments=arguments,
            results=nodes.results(node),
            used_results=frozenset(user.args[1] for user in node.users if nodes.is_item(user)),
            broadcasts=all(_BROADCASTING.match(str(user.target)) for user in node.users),
        )

    def _constant_result(self, node: Any) -> Any:
        """What has constant inputs is a constant itself: weight_norm, slices of an embedding of positions."""
        import torch
        from torch.fx.node import map_arg

        def tensor(source: Any) -> Any:
            value = self._values[source]
            return value.tensor if isinstance(value, Value) else value

        with torch.no_grad():
            results = node.target(*map_arg(node.args, tensor), **map_arg(node.kwargs, tensor))
        name = f"{nodes.path(node)}.{node.name}".lstrip(".")
        constants = [
            self.graph.add_constant(name, one) for one in (results if isinstance(results, (list, tuple)) else [results])
        ]
        return constants if isinstance(results, (list, tuple)) else constants[0]

    def _composite(self, function: str, parts: Sequence[Any]) -> bool:
        """Maps a function that torch took apart as a whole; False where its parts must do."""
        outside = {source for part in parts for source in part.all_input_nodes if source not in parts}
        inputs = {self._values.get(source) for source in outside if isinstance(self._values.get(source), Value)}
        if len(inputs) != 1 or self._broken & outside:
            return False
        (value,) = inputs
        if value is None or value.tensor is not None:
            return False
        last = parts[-1]
        values = {source: self._values.get(source) for part in parts for source in part.all_input_nodes}
        arguments: dict[str, Any] = {}
        for part in parts:
            if hasattr(part.target, "_schema"):
                name = str(part.target).split(".")[1]
                for argument, value_of_argument in nodes.arguments(part, values.get).items():
                    if value_of_argument is not None and not isinstance(value_of_argument, Value):
                        arguments.setdefault(f"{name}.{argument}", value_of_argument)
        try:
            self._values[last] = COMPOSITES[function](Parts(self._traced_call(last, {}), value, arguments))
        except LoweringError as error:
            self._refuse(last, str(error))
            self._break(last)
        return True

    def _results(self, by_name: Mapping[str, Any]) -> None:
        for spec in self._program.graph_signature.output_specs:
            if spec.kind.name == "BUFFER_MUTATION":
                path, _, buffer = spec.target.rpartition(".")
                self.unsupported_calls.append(UnsupportedCall(path, buffer, reason="a buffer that the call changes"))
            elif spec.kind.name == "USER_OUTPUT":
                is_tensor = type(spec.arg).__name__ == "TensorArgument"
                self.outputs.append(
                    self._values[by_name[spec.arg.name]] if is_tensor else getattr(spec.arg, "value", None)
                )

    def _break(self, node: Any) -> None:
        """Stands in for what a refused call gives, so that those behind it are looked at too."""
        self._broken.add(node)
        values = [Value(0, shape_of(result)) for result in nodes.results(node)]
        self._values[node] = values if isinstance(node.meta.get("val"), (list, tuple)) else values[0]

    def _refuse(self, node: Any, reason: str) -> None:
        takes_tensors = any(nodes.results(source) for source in node.all_input_nodes)
        if not takes_tensors and all(str(user.target) not in LOWERINGS for user in node.users):
            return  # a tensor of zeros for a call that is refused anyway
        _, function = nodes.function(node)
        source = source_line(node.meta.get("stack_trace") or "")
        self.unsupported_calls.append(UnsupportedCall(nodes.path(node), str(node.target), function, reason, source))


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for one in values:
        if isinstance(one, (list, tuple)):
            yield from _leaves(one)
        else:
            yield one


def _depends_on_batch(leaves: Iterable[Any], node: Any) -> bool:
    """Or on a draw."""
    return nodes.is_random(node) or any(type(leaf).__name__.startswith("Sym") for leaf in leaves)
