"""Turns a request into a call on its way, a template and its tensors' data, and the answer into a value.

It knows the contract and arrays; neither channels nor loops. A template is the call's message spelled out but for its
id and data, once for all calls that are alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from google.protobuf import message_factory
from google.rpc import status_pb2

from layerwire.calls import Request
from layerwire.errors import InternalError, LayerwireError, from_status
from layerwire.transport.options import Options, Timed, Timing, seconds, wire
from layerwire.v1 import layerwire_pb2 as messages
from layerwire.wire import arrays, framing
from layerwire.wire.dtypes import TensorSpec
from layerwire.wire.framing import Entry, MapEntry
from layerwire.wire.protobuf import prefix

Tensor = TypeVar("Tensor")

_NEVER = math.inf
_now = time.monotonic

_FIELDS: Mapping[str, Any] = messages.Call.DESCRIPTOR.fields_by_name
REQUESTS: dict[str, Any] = {
    name: message_factory.GetMessageClass(field.message_type)
    for name, field in _FIELDS.items()
    if field.message_type is not None
}
# Families that take tensors by key, and the map; and those that answer with a map.
_MAP_FIELDS = {"run": "inputs", "differentiate": "output_gradients"}
MAPS = {"run": "outputs", "differentiate": "gradients"}


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
        is_finished: whether its promise has a result or an error, or nobody waits for it.
    """

    __slots__ = (
        "connection", "data", "deadline", "entry", "function", "id", "is_finished", "make", "nbytes", "options",
        "outputs", "promise", "signature", "tries",
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
                spec, elements, make = arrays.serialize(function, name, value)
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
        self.is_finished = False

    def renew(self, now: float) -> None:
        """Tells the server only the time that is left, for sending the call again."""
        seconds_left = None if self.deadline == math.inf else max(self.deadline - now, 1e-3)
        self.entry = template(self.signature, wire(self.options, seconds_left))

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
            tensors = getattr(response, MAPS[family])
            names = self.outputs or tensors
            value = NamedTensors({name: self.make(tensors[name]) for name in names})
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


class NamedTensors(dict[str, Tensor]):
    """Tensors by name, as `run` and `differentiate` return them.

    Attributes:
        version: of a stored program, the version that ran.
    """

    version: int | None = None


class Signature(NamedTuple):
    """What stays when a call is repeated with other data.

    Attributes:
        family: field of Call.
        head: the operator; of run and differentiate the request without its tensors and options.
        tensors: where each stands, by field or key, and its spec or name.
        of: of differentiate: family and head of the call it is of, and how many of the tensors are that call's.
    """

    family: str
    head: bytes
    tensors: tuple[tuple[str, arrays.Spec | str], ...]
    of: tuple[str, bytes, int] | None = None


@lru_cache(maxsize=4096)
def template(signature: Signature, options: bytes) -> Entry:
    """The template; `options` is the serialized options field."""
    family, head, tensors, of = signature
    number = _FIELDS[family].number
    if of is None:
        return framing.entry(number, _head(family, head, options), _slots(family, tensors))
    inner_family, inner_head, count = of
    slots = _slots(inner_family, tensors[:count])
    inner, inner_length = framing.literals(_head(inner_family, inner_head, options), slots)
    outer, outer_length = framing.literals(b"", _slots(family, tensors[count:]), head)
    tag = prefix(REQUESTS[family].DESCRIPTOR.fields_by_name[inner_family].number, inner_length)
    gaps = (tag + inner[0], *inner[1:-1], inner[-1] + outer[0], *outer[1:])
    if len(inner) == 1:  # the call has no data of its own
        gaps = (tag + inner[0] + outer[0], *outer[1:])
    return framing.entry_of(number, gaps, len(tag) + inner_length + outer_length)


def _head(family: str, head: bytes, options: bytes) -> bytes:
    """What comes before the tensors: options, and operator or what stands in its place."""
    if family in _MAP_FIELDS:
        return options + head
    return options + prefix(REQUESTS[family].DESCRIPTOR.fields_by_name["operator"].number, len(head)) + head


def _slots(family: str, tensors: tuple[tuple[str, arrays.Spec | str], ...]) -> framing.Tensors:
    fields = REQUESTS[family].DESCRIPTOR.fields_by_name
    map_field = _MAP_FIELDS.get(family)
    number = 0 if map_field is None else fields[map_field].number
    return [
        (
            fields[name].number if map_field is None else MapEntry(number, name),
            content if isinstance(content, str) else TensorSpec(*content),
        )
        for name, content in tensors
    ]
