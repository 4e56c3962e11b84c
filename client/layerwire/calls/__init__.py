"""The operators under their torch.nn.functional names: each method turns its arguments into a Request.

It knows the contract's messages and numpy; neither channels nor torch. `Calls(call)` returns what `call` makes of a
request: Client's waits for the answer, AsyncClient's gives an awaitable, that of `submit` a future.

Everywhere: what goes in is a numpy array, a torch tensor, a number or nested lists of numbers, or the name of stored
weights. What comes out is torch where a torch tensor went in, numpy elsewhere. Names, order and defaults of arguments
are torch's, all of them. Of those that say where the answer goes only the default is taken, `inplace` False and `out`
None, for no server writes in its caller's memory; `_stacklevel` does nothing.

Every method takes `timeout`, the seconds until the answer is no longer wanted; None is the client's own.

Raises (all methods): TypeError for an argument of a wrong type, InvalidArgumentError (a ValueError) for one of a wrong
value, and whatever else `layerwire.errors` has.
"""

from __future__ import annotations

from layerwire.calls.activate import ACTIVATIONS
from layerwire.calls.map_calls import MapCalls, MapRequest, Rows
from layerwire.calls.methods import Calls, OperatorCalls, Requests, operator_methods
from layerwire.calls.request import Request, TensorLike

__all__ = [
    "ACTIVATIONS",
    "Calls",
    "MapCalls",
    "MapRequest",
    "OperatorCalls",
    "Request",
    "Requests",
    "Rows",
    "TensorLike",
    "operator_methods",
]
