"""Reading the nodes of torch's graphs: where they stand in the module, what was called, with which arguments.

It knows torch.fx's metadata; neither programs nor operators.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_REPEATED = re.compile(r"@\d+")  # torch marks the second call of a shared module so


def path(node: Any) -> str:
    """Of the innermost submodule that makes the call, such as "features.0"; "" for the module itself."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [name for name, _ in stack.values() if not name.startswith("_empty")]
    return _REPEATED.sub("", names[-1]) if names else ""


def function(node: Any) -> tuple[str, str]:
    """What was written: a text that differs from call to call, and the function's name, such as "softsign"."""
    call, name = node.meta.get("torch_fn") or (node.name, "")
    return call, name.rpartition(".")[2]


def arguments(node: Any, value_of: Callable[[Any], Any]) -> dict[str, Any]:
    """By their names in the schema, defaults too; other nodes as `value_of` has them."""
    from torch.fx.node import map_arg

    by_name = {}
    for position, argument in enumerate(node.target._schema.arguments):  # noqa: SLF001
        if position < len(node.args):
            by_name[argument.name] = map_arg(node.args[position], value_of)
        elif argument.name in node.kwargs:
            by_name[argument.name] = map_arg(node.kwargs[argument.name], value_of)
        else:
            by_name[argument.name] = argument.default_value
    return by_name


def results(node: Any) -> list[Any]:
    """What it gives, as tensors without elements; nothing if it gives numbers."""
    value = node.meta.get("val")
    several = list(value) if isinstance(value, (list, tuple)) else [value]
    return several if all(hasattr(one, "dtype") for one in several) else []


def is_item(node: Any) -> bool:
    """Whether it takes one of several results."""
    return getattr(node.target, "__name__", "") == "getitem"


def is_random(node: Any) -> bool:
    """Whether it draws numbers."""
    return any("nondeterministic" in str(tag) for tag in getattr(node.target, "tags", ()))
