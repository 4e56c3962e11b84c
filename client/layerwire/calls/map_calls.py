"""Turns one call of a method, with sequences where it has tensors, into a MapRequest: the request of many calls.

It knows the signatures of methods and arrays; neither channels nor torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Generic, NamedTuple

import numpy as np

from layerwire.calls.arguments import flag
from layerwire.calls.methods import Calls, Requests
from layerwire.calls.request import Answer_co, Request
from layerwire.errors import invalid

# One for all calls, unless there is a list of arrays or of names.
WEIGHTS = frozenset({"weight", "bias", "running_mean", "running_var"})


class Rows(NamedTuple):
    """A tensor for each call: a sequence of them, or an array whose first axis is the calls."""

    values: Any


class MapRequest(NamedTuple):
    """What is asked of many calls.

    Attributes:
        request: that of a call, with Rows among its tensors.
        calls: how many there are.
        draw: the same again with another seed, where each call has its own; else None.
        return_exceptions: whether errors stand among the answers.
    """

    request: Request
    calls: int
    draw: Callable[[], Request] | None
    return_exceptions: bool


class MapCalls(Generic[Answer_co]):
    """The methods of Calls for many calls at once: `map.relu(arrays)` returns `[relu(array) for array in arrays]`.

    Where a method takes a tensor, a sequence of them, or an array whose first axis is the calls, gives each call its
    own; a name is for all of them. Weights, biases and running statistics are for all of them too, unless they are a
    list of arrays or of names. All other arguments are those of each call.

    Every method takes `return_exceptions`: whether errors stand among the answers, as in asyncio.gather; else the error
    of the first call that failed is raised when all have ended.

    Args:
        call: what becomes of a request.
    """

    def __init__(self, call: Callable[[MapRequest], Answer_co]) -> None:
        self.call = call


def _rows(name: str, value: Any) -> Any:
    """Rows of an argument that has a tensor for each call; any other as it is."""
    if isinstance(value, Mapping):
        return {key: _rows("input", tensor) for key, tensor in value.items()}
    if isinstance(value, str | bytes | bytearray):
        return value
    if name in WEIGHTS:
        is_list = isinstance(value, list | tuple) and len(value) and not isinstance(value[0], np.generic)
        return Rows(value) if is_list and (isinstance(value[0], str) or hasattr(value[0], "shape")) else value
    return Rows(value) if isinstance(value, Sequence) or len(getattr(value, "shape", ())) else value


def _method(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)
    tensors = {each.name for each in signature.parameters.values() if "TensorLike" in str(each.annotation)}

    def request_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Request, bool]:
        """The request with Rows in it, and whether a seed was drawn for it."""
        requests = Requests()
        try:
            bound = signature.bind(requests, *args, **kwargs)
        except TypeError:
            method(requests, *args, **kwargs)  # which says it better
            raise
        for each, value in bound.arguments.items():
            if each in tensors:
                bound.arguments[each] = _rows(each, value)
            elif each == "parameters":  # of activate
                bound.arguments[each] = {key: _rows(key, one) if key in WEIGHTS else one for key, one in value.items()}
            elif each == "call":  # of differentiate
                bound.arguments[each] = lambda _, call=value: call(MapRequests())
        request: Request = method(*bound.args, **bound.kwargs)
        return request, request.function in _DRAWING and {**bound.arguments, **kwargs}.get("seed") is None

    @wraps(method)
    def map_method(self: Any, /, *args: Any, return_exceptions: bool = False, **kwargs: Any) -> Any:
        return_exceptions = flag(name, "return_exceptions", return_exceptions)
        request, is_drawn = request_of(args, kwargs)
        if isinstance(self, MapRequests):
            return request
        draw = (lambda: request_of(args, kwargs)[0]) if is_drawn else None
        return self.call(MapRequest(request, _count(request), draw, return_exceptions))

    return map_method


def _count(request: Request) -> int:
    """How many calls there are.

    Raises:
        TypeError: no argument has a tensor for each call.
        InvalidArgumentError: two have different numbers of them.
    """
    tensors = {**request.tensors, **(request.of.tensors if request.of is not None else {})}
    counts = {name: len(value.values) for name, value in tensors.items() if isinstance(value, Rows)}
    if not counts:
        raise TypeError(
            f"{request.function}: map takes a sequence of tensors, or an array of which axis 0 is the calls"
        )
    first, count = next(iter(counts.items()))
    for name, other in counts.items():
        if other != count:
            raise invalid(request.function, name, f"has tensors for {other} calls, {first} for {count}")
    return count


_METHODS = {name: method for name, method in inspect.getmembers(Calls, inspect.isfunction) if not name.startswith("_")}
_DRAWING = frozenset(name for name, method in _METHODS.items() if "seed" in inspect.signature(method).parameters)

for _name, _function in _METHODS.items():
    setattr(MapCalls, _name, _method(_name, _function))


class MapRequests(MapCalls[Request]):
    """The methods, for the call of which gradients are wanted: each gives its request, with Rows in it."""

    def __init__(self) -> None:
        super().__init__(lambda request: request.request)
