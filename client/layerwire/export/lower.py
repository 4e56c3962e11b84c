"""From torch's graph to a program: each call by the tables of mappings, what has constant inputs worked out at once.

It knows torch's graphs; no operator in particular.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from layerwire.export import nodes
from layerwire.export.call import Call, Lowering, shape_of
from layerwire.export.graph import Graph, Value
from layerwire.export.lowerings.activations import ACTIVATIONS
from layerwire.export.lowerings.arithmetic import ARITHMETIC
from layerwire.export.lowerings.arrangements import ARRANGEMENTS
from layerwire.export.lowerings.composites import COMPOSITES, Parts
from layerwire.export.lowerings.convolutions import CONVOLUTIONS
from layerwire.export.lowerings.normalizations import NORMALIZATIONS
from layerwire.export.lowerings.pools import POOLS
from layerwire.export.refusal import Unsupported, UnsupportedCall
from layerwire.export.trace import Trace, source_line
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


class Lowered:
    """A traced module as a program.

    Attributes:
        graph: the program in the making.
        outputs: for each leaf of what the module gives, its Value, or what it is if it's no tensor.
        refused: the calls that have no counterpart.
    """

    def __init__(self, traced: Trace) -> None:
        self.graph = Graph()
        self.outputs: list[Any] = []
        self.refused: list[UnsupportedCall] = []
        self._module = traced.module
        self._exported = traced.exported
        self._known: dict[Any, Any] = {}  # torch.fx.Node -> Value, several, or a number
        self._broken: set[Any] = set()  # nodes that were refused, or need such
        self._walk(list(traced.exported.graph.nodes))

    def _walk(self, found: Sequence[Any]) -> None:
        placeholders = [node for node in found if node.op == "placeholder"]
        for node, spec in zip(placeholders, self._exported.graph_signature.input_specs, strict=True):
            self._placeholder(node, spec)
        # Nodes that nobody uses are assertions.
        calls = [node for node in found if node.op == "call_function" and node.users]
        for (_, function), group in groupby(calls, key=nodes.function):
            parts = list(group)
            if not (function in COMPOSITES and self._composite(function, parts)):
                for node in parts:
                    self._call(node)
        self._results({node.name: node for node in found})

    def _placeholder(self, node: Any, spec: Any) -> None:
        try:
            if spec.kind.name == "USER_INPUT":
                found = node.meta["val"]
                self._known[node] = self.graph.add_input(node.name, wire_dtype(found.dtype), shape_of(found))
            elif node.users:
                self._known[node] = self.graph.add_constant(spec.target, self._tensor(spec.target))
        except Unsupported as error:
            target = spec.target or node.name
            self._break(node)
            self.refused.append(UnsupportedCall(target.rpartition(".")[0], target, reason=str(error)))

    def _tensor(self, target: str) -> Any:
        for store in (self._exported.state_dict, self._exported.constants):
            if target in store and hasattr(store[target], "data_ptr"):
                return store[target].detach()
        raise Unsupported("not a tensor")

    def _call(self, node: Any) -> None:
        """Maps one node, or notes why it can't be."""
        if not nodes.results(node):
            self._known[node] = node.meta.get("val")  # a number, such as the batch size
            return
        try:
            self._known[node] = self._item(node) if nodes.is_item(node) else self._mapped(node)
        except Unsupported as error:
            # What goes wrong behind a refused call may be its fault; that there is no operator is not.
            mappable = nodes.is_item(node) or str(node.target) in LOWERINGS
            if not (mappable and self._broken.intersection(node.all_input_nodes)):
                self._refuse(node, str(error))
            self._break(node)

    def _item(self, node: Any) -> Value:
        source, position = node.args
        found = self._known[source][position]
        if not isinstance(found, Value):
            raise Unsupported(f"result {position} is not there")
        return found

    def _mapped(self, node: Any) -> Any:
        if not hasattr(node.target, "_schema"):
            raise Unsupported("")
        arguments = nodes.arguments(node, self._known.get)
        found = list(_leaves(arguments.values()))
        constants = [leaf for leaf in found if isinstance(leaf, Value)]
        if all(value.tensor is not None for value in constants) and not _depends_on_batch(found, node):
            return self._worked_out(node)
        if str(node.target) not in LOWERINGS:
            raise Unsupported("")
        return LOWERINGS[str(node.target)](self._described(node, arguments))

    def _described(self, node: Any, arguments: Mapping[str, Any]) -> Call:
        path = nodes.path(node)
        module = self._module.get_submodule(path)
        return Call(
            graph=self.graph,
            path=path,
            is_leaf=next(module.children(), None) is None,
            module=module,
            arguments=arguments,
            results=nodes.results(node),
            used=frozenset(user.args[1] for user in node.users if nodes.is_item(user)),
            broadcasts=all(_BROADCASTING.match(str(user.target)) for user in node.users),
        )

    def _worked_out(self, node: Any) -> Any:
        """What has constant inputs is a constant itself: weight_norm, slices of an embedding of positions."""
        import torch
        from torch.fx.node import map_arg

        def tensor(source: Any) -> Any:
            found = self._known[source]
            return found.tensor if isinstance(found, Value) else found

        with torch.no_grad():
            given = node.target(*map_arg(node.args, tensor), **map_arg(node.kwargs, tensor))
        name = f"{nodes.path(node)}.{node.name}".lstrip(".")
        made = [self.graph.add_constant(name, one) for one in (given if isinstance(given, (list, tuple)) else [given])]
        return made if isinstance(given, (list, tuple)) else made[0]

    def _composite(self, function: str, parts: Sequence[Any]) -> bool:
        """Maps a function that torch took apart as a whole; False where its parts must do."""
        outside = {source for part in parts for source in part.all_input_nodes if source not in parts}
        inputs = {self._known.get(source) for source in outside if isinstance(self._known.get(source), Value)}
        if len(inputs) != 1 or self._broken & outside:
            return False
        (value,) = inputs
        if value is None or value.tensor is not None:
            return False
        last = parts[-1]
        known = {source: self._known.get(source) for part in parts for source in part.all_input_nodes}
        arguments: dict[str, Any] = {}
        for part in parts:
            if hasattr(part.target, "_schema"):
                name = str(part.target).split(".")[1]
                for argument, found in nodes.arguments(part, known.get).items():
                    if found is not None and not isinstance(found, Value):
                        arguments.setdefault(f"{name}.{argument}", found)
        try:
            self._known[last] = COMPOSITES[function](Parts(self._described(last, {}), value, arguments))
        except Unsupported as error:
            self._refuse(last, str(error))
            self._break(last)
        return True

    def _results(self, by_name: Mapping[str, Any]) -> None:
        for spec in self._exported.graph_signature.output_specs:
            if spec.kind.name == "BUFFER_MUTATION":
                path, _, buffer = spec.target.rpartition(".")
                self.refused.append(UnsupportedCall(path, buffer, reason="a buffer that the call changes"))
            elif spec.kind.name == "USER_OUTPUT":
                is_tensor = type(spec.arg).__name__ == "TensorArgument"
                self.outputs.append(
                    self._known[by_name[spec.arg.name]] if is_tensor else getattr(spec.arg, "value", None)
                )

    def _break(self, node: Any) -> None:
        """Stands in for what a refused call gives, so that those behind it are looked at too."""
        self._broken.add(node)
        made = [Value(0, shape_of(result)) for result in nodes.results(node)]
        self._known[node] = made if isinstance(node.meta.get("val"), (list, tuple)) else made[0]

    def _refuse(self, node: Any, reason: str) -> None:
        takes_tensors = any(nodes.results(source) for source in node.all_input_nodes)
        if not takes_tensors and all(str(user.target) not in LOWERINGS for user in node.users):
            return  # a tensor of zeros for a call that is refused anyway
        _, written = nodes.function(node)
        source = source_line(node.meta.get("stack_trace") or "")
        self.refused.append(UnsupportedCall(nodes.path(node), str(node.target), written, reason, source))


def _leaves(found: Iterable[Any]) -> Iterator[Any]:
    for one in found:
        if isinstance(one, (list, tuple)):
            yield from _leaves(one)
        else:
            yield one


def _depends_on_batch(leaves: Iterable[Any], node: Any) -> bool:
    """Or on a draw."""
    return nodes.is_random(node) or any(type(leaf).__name__.startswith("Sym") for leaf in leaves)
