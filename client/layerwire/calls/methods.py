"""Every operator, `run` and `differentiate` as methods of one class, which turns their arguments into a Request.

It knows the families' methods and messages; neither channels nor torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from layerwire.calls.activate import ActivateCalls
from layerwire.calls.convolve import ConvolveCalls
from layerwire.calls.linear import LinearCalls
from layerwire.calls.max_pool import MaxPoolCalls
from layerwire.calls.mean_pool import MeanPoolCalls
from layerwire.calls.normalize import NormalizeCalls
from layerwire.calls.request import Answer_co, Request, TensorLike
from layerwire.calls.sliding_blocks import SlidingBlockCalls
from layerwire.calls.unpool import UnpoolCalls
from layerwire.errors import invalid
from layerwire.v1 import layerwire_pb2 as messages
from layerwire.v1 import program_pb2


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
    """Every operator as a method."""


class Calls(OperatorCalls[Answer_co]):
    """Operators, programs and gradients as methods that return what `call` makes of their requests.

    Attributes:
        call: what becomes of a request: its answer, a future or an awaitable of it, or the request itself.
    """

    def run(
        self,
        program: str | program_pb2.Program,
        inputs: Mapping[str, TensorLike],
        *,
        version: int | None = None,
        intermediates: Iterable[str] = (),
        timeout: float | None = None,
    ) -> Answer_co:
        """Runs a program of the store, or one that goes along; returns its outputs by name, as a dict.

        Args:
            program: its name, or the program itself.
            inputs: its inputs by name; with a free axis 0 any number of rows.
            version: one of its versions; None: the default one.
            intermediates: names of values to return besides the outputs, such as "conv1" or "pool1.indices".
            timeout: seconds until the answer is no longer wanted.
        """
        if isinstance(program, str):
            request = messages.RunRequest(name=program, version=version, intermediates=intermediates)
            function = f"run {program}"
        else:
            if version is not None:
                raise invalid("run", "version", f"goes with a program's name, got {version} with a program")
            request = messages.RunRequest(definition=program, intermediates=intermediates)
            function = "run"
        if not isinstance(inputs, Mapping):
            raise TypeError(f"run: inputs must map names to tensors, got {type(inputs).__name__}")
        return self.call(Request("run", request, inputs, (), function, timeout))

    def differentiate(
        self,
        call: Callable[[Calls[Request]], Request],
        output_gradients: Mapping[str, TensorLike] | TensorLike,
        wanted: Iterable[str],
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Gradients of a call by its inputs and weights, as a dict: the vector-Jacobian product.

        `lw.differentiate(lambda f: f.conv2d(x, w), gradient, ["input", "weight"])`

        Args:
            call: what is differentiated: gets the operators as methods, and returns what one of them returns.
            output_gradients: the gradient by "output", or by several outputs as a dict; those left out are zero.
            wanted: what gradients are wanted by: "input", "weight", ..., or names of a program's inputs and constants.
            timeout: seconds until the answer is no longer wanted.
        """
        request = call(Requests())
        if not isinstance(request, Request):
            raise TypeError(f"differentiate: call must return what a method gave, got {type(request).__name__}")
        gradients = output_gradients if isinstance(output_gradients, Mapping) else {"output": output_gradients}
        head = messages.DifferentiateRequest(wanted=wanted)
        function = f"differentiate {request.function}"
        return self.call(Request("differentiate", head, gradients, (), function, timeout, request))


class Requests(Calls[Request]):
    """Every method gives its request."""

    def __init__(self) -> None:
        super().__init__(lambda request: request)


def operator_methods() -> dict[str, Callable[..., Any]]:
    """The methods that are operators, by name; without `activate`, which takes the name of another."""
    members = inspect.getmembers(OperatorCalls, inspect.isfunction)
    return {name: method for name, method in members if not name.startswith("_") and name != "activate"}
