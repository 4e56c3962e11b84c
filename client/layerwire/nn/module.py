"""What all remote modules have in common: torch's module with its parameters, computed by a server.

It knows torch's modules and the SDK's methods; no module in particular.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from layerwire.autograd import BlockingClient, Functional
from layerwire.calls import Calls

# The class of torch.nn -> the remote one.
TWINS: dict[type[nn.Module], type[Remote]] = {}
_MISSING: Any = object()
# Arguments that no module has as an attribute of that meaning; for `inplace` see Remote.
_NEVER_ATTRIBUTES = {"self", "input", "inplace", "_stacklevel", "dtype", "seed", "timeout", "training"}


class Remote(nn.Module):
    """A module of torch.nn whose forward and backward a server computes: `RemoteConv2d(1, 6, 5, client=lw)`.

    It has its namesake's constructor with `client` besides, its parameters, buffers and state_dict, and is an instance
    of it. `inplace` is taken and does nothing: the answer is a new tensor. Copies share the client; pickle refuses it,
    so save the state_dict.

    A subclass names the method that it calls. Where `forward` isn't its own, the method gets those of its arguments
    that the module has as attributes, by their names.

    Args:
        client: a Client, or a view of one, as `lw.options(timeout=5)`.
    """

    function: ClassVar[str] = ""
    _attributes: ClassVar[tuple[str, ...]] = ()

    functional: Functional

    if TYPE_CHECKING:  # torch's own is of Any

        def __call__(self, *inputs: torch.Tensor, **kwargs: Any) -> torch.Tensor: ...

    def __init_subclass__(cls, *, function: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not function:
            return
        namesake: Any = cls.__bases__[1]
        cls.function = function
        arguments = inspect.signature(getattr(Calls, function)).parameters
        cls._attributes = tuple(name for name in arguments if name not in _NEVER_ATTRIBUTES)
        cls.__doc__ = cls.__doc__ or f"torch.nn.{namesake.__name__}, computed by a server; see Remote."
        cls.__signature__ = _with_client(inspect.signature(namesake))  # type: ignore[attr-defined]  # for help()
        TWINS[namesake] = cls

    def __init__(self, *args: Any, client: BlockingClient, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.functional = Functional(client)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """What the namesake computes."""
        attributes = ((name, getattr(self, name, _MISSING)) for name in self._attributes)
        arguments = {name: value for name, value in attributes if value is not _MISSING}
        return getattr(self.functional, self.function)(*inputs, **(arguments | keywords))


def _with_client(signature: inspect.Signature) -> inspect.Signature:
    client = inspect.Parameter("client", inspect.Parameter.KEYWORD_ONLY, annotation=BlockingClient)
    parameters = [*signature.parameters.values()]
    at = next(
        (index for index, one in enumerate(parameters) if one.kind is inspect.Parameter.VAR_KEYWORD), len(parameters)
    )
    return signature.replace(parameters=[*parameters[:at], client, *parameters[at:]])
