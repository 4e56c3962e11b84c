"""Programs and gradients as methods.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from layerwire.calls.request import Answer_co, Family, Request, TensorLike
from layerwire.errors import invalid
from layerwire.v1 import layerwire_pb2 as messages
from layerwire.v1 import program_pb2

if TYPE_CHECKING:
    from layerwire.calls import Calls


class ProgramCalls(Family[Answer_co]):
    """run, differentiate."""

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
        return self._call(Request("run", request, inputs, (), function, timeout))

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
        from layerwire.calls import Requests

        request = call(Requests())
        if not isinstance(request, Request):
            raise TypeError(f"differentiate: call must return what a method gave, got {type(request).__name__}")
        gradients = output_gradients if isinstance(output_gradients, Mapping) else {"output": output_gradients}
        head = messages.DifferentiateRequest(wanted=wanted)
        function = f"differentiate {request.function}"
        return self._call(Request("differentiate", head, gradients, (), function, timeout, request))
