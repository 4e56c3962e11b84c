"""From a local module to one whose layers a server computes, with the same parameters.

It knows torch's modules and their remote twins; neither calls nor autograd.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from layerwire.autograd import BlockingClient, Functional
from layerwire.nn.module import TWINS, Remote

Module = TypeVar("Module", bound=nn.Module)


def remote(module: Module, client: BlockingClient) -> Module:
    """The same module with every layer that has a remote twin computed by a server.

    The module itself is left as it is. Parameters and buffers are the very same tensors, so that an optimizer of either
    trains both, and running statistics are kept for both. What has no twin stays local: containers, dropout, what a
    module computes in its own forward, and subclasses of torch's layers, whose forward may be their own. Layers with
    parametrizations, such as weight_norm, are converted.

    Args:
        module: the module.
        client: a Client, or a view of one, as `lw.options(timeout=5)`.

    Raises:
        TypeError: it is no torch.nn.Module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"remote: module must be a torch.nn.Module, got {type(module).__name__}")
    return cast("Module", _convert(module, Functional(client), {}))


def _convert(module: nn.Module, functional: Functional, twins: dict[int, nn.Module]) -> nn.Module:
    """A shallow copy with converted submodules; one that is in several places stays one."""
    if id(module) in twins:
        return twins[id(module)]
    if isinstance(module, torch.jit.ScriptModule):
        return module  # its code is compiled
    kind = _kind(module)
    twin = twins[id(module)] = kind.__new__(kind)
    # The dicts of parameters, buffers, hooks are the twin's own, what is in them is shared.
    state: dict[str, Any] = {
        name: copy.copy(value) if isinstance(value, dict) else value for name, value in vars(module).items()
    }
    twin.__dict__.update(state)
    if isinstance(twin, Remote):
        twin.functional = functional
    for name, child in module._modules.items():  # noqa: SLF001  # named_children leaves out None and duplicates
        twin._modules[name] = None if child is None else _convert(child, functional, twins)  # noqa: SLF001
    return twin


def _kind(module: nn.Module) -> type[nn.Module]:
    kind = type(module)
    if kind in TWINS:
        return TWINS[kind]
    if parametrize.is_parametrized(module) and kind.__bases__[0] in TWINS:  # torch made a class for this module alone
        twin = TWINS[kind.__bases__[0]]
        return type(f"Parametrized{twin.__name__}", (twin, kind), {})
    return kind
