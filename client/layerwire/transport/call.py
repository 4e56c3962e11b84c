"""One call on its way: its template and data, and how its answer becomes a value.

It knows the contract and arrays; neither channels nor loops.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from google.rpc import status_pb2

from layerwire.calls import Request
from layerwire.errors import InternalError, LayerwireError, from_status
from layerwire.transport.options import Options, Timed, Timing, seconds, wire
from layerwire.transport.templates import MAPS, REQUESTS, Signature, template
from layerwire.v1 import layerwire_pb2 as messages
from layerwire.wire import arrays

_NEVER = math.inf
_now = time.monotonic


class Promise(Protocol):
    """Where an answer goes: an asyncio.Future, or a future of this package."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, result: Any, /) -> None:
        """The value."""

    def set_exception(self, exception: Any, /) -> None:
        """The error."""


class Call:
    """A call between the caller's thread and the answer.

    Attributes:
        id: its number within the client, given when it is submitted.
        deadline: time.monotonic() after which nobody wants the answer; infinite for none.
        nbytes: bytes in a frame.
        tries: answers that asked to try again.
        connection: where it was sent, or waits to be.
        finished: whether its promise was kept or broken, or nobody waits for it.
    """

    __slots__ = (
        "connection", "data", "deadline", "entry", "finished", "function", "id", "make", "nbytes", "options", "outputs",
        "promise", "signature", "tries",
    )  # fmt: skip

    def __init__(self, request: Request, options: Options, promise: Promise) -> None:
        family, operator, tensors, outputs, function, timeout, of = request
        if timeout is None:
            timeout, head = options.timeout, options.wire
        else:
            timeout = seconds(timeout)
            head = wire(options, timeout)
        specs: list[tuple[str, arrays.Spec | str]] = []
        data: list[bytes] = []
        self.make: arrays.Maker = arrays.to_numpy
        for name, value in tensors.items() if of is None else [*of.tensors.items(), *tensors.items()]:
            if type(value) is np.ndarray and (dtype := arrays.WIRE_DTYPES.get(value.dtype)) is not None:
                specs.append((name, (dtype, value.shape)))
                data.append(value.tobytes())
            elif isinstance(value, str):
                specs.append((name, str(value)))
            else:
                spec, elements, make = arrays.taken(function, name, value)
                specs.append((name, spec))
                data.append(elements)
                if make is not None and self.make is arrays.to_numpy:
                    self.make = make
        self.id = 0
        inner = None if of is None else (of.family, of.operator.SerializeToString(), len(of.tensors))
        self.signature = signature = Signature(family, operator.SerializeToString(), tuple(specs), inner)
        self.options = options
        self.entry = entry = template(signature, head)
        self.data: Sequence[bytes] = data
        self.nbytes = entry.nbytes
        self.deadline = _NEVER if timeout is None else _now() + timeout
        self.outputs = outputs
        self.function = function
        self.promise = promise
        self.tries = 0
        self.connection: Any = None
        self.finished = False

    def renew(self, now: float) -> None:
        """Tells the server only the time that is left, for sending the call again."""
        left = None if self.deadline == math.inf else max(self.deadline - now, 1e-3)
        self.entry = template(self.signature, wire(self.options, left))

    def value(self, answer: messages.Answer) -> Any:
        """What the call returns: an array, a tuple of them, or Timed.

        Raises:
            LayerwireError: the answer is an error, or can't be read.
        """
        family = self.signature.family
        if answer.WhichOneof("result") != family:
            raise self.error(answer)
        response = getattr(answer, family)
        value: Any
        if family in MAPS:
            found = getattr(response, MAPS[family])
            names = self.outputs or found
            value = Named({name: self.make(found[name]) for name in names})
            value.version = getattr(response, "version", None)
        elif len(self.outputs) == 1:
            value = self.make(response.output)
        else:
            value = tuple(self.make(getattr(response, name)) for name in self.outputs if response.HasField(name))
        return Timed(value, Timing.from_message(response.timing)) if self.options.timing else value

    def error(self, answer: messages.Answer) -> LayerwireError:
        """The error that an answer is."""
        if answer.WhichOneof("result") != "status":
            return InternalError(f"{self.function}: the server answered with something else", operator=self.function)
        error = from_status(status_pb2.Status.FromString(answer.status.SerializeToString()))
        error.operator = error.operator or self.function
        return error


class Named(dict[str, Any]):
    """Tensors by name, as `run` and `differentiate` return them.

    Attributes:
        version: of a stored program, the version that ran.
    """

    version: int | None = None


def as_message(request: Request, options: Options) -> Any:
    """The family's request message without the tensors' data, for Estimate."""
    call = Call(request, options, _NOBODY)
    message: Any
    if request.family == "run":
        message = messages.RunRequest.FromString(request.operator.SerializeToString())
    else:
        message = REQUESTS[request.family](operator=request.operator)
    for name, content in call.signature.tensors:
        tensor = message.inputs[name] if request.family == "run" else getattr(message, name)
        if isinstance(content, str):
            tensor.name = content
        else:
            tensor.dtype = content[0]
            tensor.shape.extend(content[1])
    return message


class _Nobody:
    """A promise to nobody."""

    def done(self) -> bool:
        return True

    def set_result(self, result: Any) -> None:
        pass

    def set_exception(self, exception: Any) -> None:
        pass


_NOBODY = _Nobody()
