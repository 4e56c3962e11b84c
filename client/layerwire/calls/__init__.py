"""The operators under their torch.nn.functional names: each method turns its arguments into a Request.

It knows the contract's messages and numpy; neither channels nor torch. Whoever subclasses Calls decides in `_call` what
becomes of a request: Client waits for the answer, AsyncClient gives an awaitable, `submit` a future.

Everywhere: what goes in is a numpy array, a torch tensor, a number or nested lists of numbers, or the name of stored
weights. What comes out is torch where a torch tensor went in, numpy elsewhere. Names, order and defaults of arguments
are torch's, all of them. Of those that say where the answer goes only the default is taken, `inplace` False and `out`
None, for no server writes in its caller's memory; `_stacklevel` does nothing.

Every method takes `timeout`, the seconds until the answer is no longer wanted; None is the client's own.

Raises (all methods): TypeError for an argument of a wrong type, InvalidArgumentError (a ValueError) for one of a wrong
value, and whatever else `layerwire.errors` has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from layerwire.calls.activate import ACTIVATIONS, ActivateCalls
from layerwire.calls.convolve import ConvolveCalls
from layerwire.calls.linear import LinearCalls
from layerwire.calls.max_pool import MaxPoolCalls
from layerwire.calls.mean_pool import MeanPoolCalls
from layerwire.calls.normalize import NormalizeCalls
from layerwire.calls.methods import ProgramCalls
from layerwire.calls.request import Answer_co, Family, Request, TensorLike
from layerwire.calls.sliding_blocks import SlidingBlockCalls
from layerwire.calls.unpool import UnpoolCalls

__all__ = [
    "ACTIVATIONS",
    "Answer_co",
    "Calls",
    "Family",
    "OperatorCalls",
    "Request",
    "Requests",
    "TensorLike",
    "methods",
]


class OperatorCalls(
    MaxPoolCalls[Answer_co],
    MeanPoolCalls[Answer_co],
    UnpoolCalls[Answer_co],
    LinearCalls[Answer_co],
    ActivateCalls[Answer_co],
    ConvolveCalls[Answer_co],
    SlidingBlockCalls[Answer_co],
    NormalizeCalls[Answer_co],
):
    """Every operator as a method; `_call` is what a subclass adds."""


def methods() -> dict[str, Callable[..., Any]]:
    """The methods that are operators, by name; without `activate`, which takes the name of another."""
    found = inspect.getmembers(OperatorCalls, inspect.isfunction)
    return {name: method for name, method in found if not name.startswith("_") and name != "activate"}


class Calls(OperatorCalls[Answer_co], ProgramCalls[Answer_co]):
    """Operators, programs and gradients."""


class Requests(Calls[Request]):
    """Every method gives its request."""

    def _call(self, request: Request) -> Request:
        return request
