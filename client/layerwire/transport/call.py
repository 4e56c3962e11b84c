"""Turns a request into a call on its way: a template, which it shares with calls that are alike, and its tensors' data.

It knows arrays; neither channels nor loops. What becomes of it is its promise's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from layerwire.calls import Request
from layerwire.transport.client_memory import ClientMemory
from layerwire.transport.options import Options, seconds, wire
from layerwire.transport.templates import MAPS, REQUESTS, CallTemplate, NamedTensors, call_entry, call_template
from layerwire.wire import arrays
from layerwire.wire.protobuf import prefix

__all__ = ["MAPS", "NOBODY", "REQUESTS", "Call", "NamedTensors", "Promise", "call_groups", "single_calls"]

Message: TypeAlias = tuple[list[bytes | memoryview], int]
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
        template: what it has in common with other calls.
        entry: its bytes; those of the template, until it is sent again.
        data: its tensors' data.
        id: its number within the client, given when it is submitted.
        deadline: time.monotonic() after which nobody wants the answer; infinite for none.
        nbytes: bytes in a frame.
        tries: answers that asked to try again.
        connection: where it was sent, or waits to be.
        is_finished: whether its promise has a result or an error, or nobody waits for it.
    """

    __slots__ = (
        "connection", "data", "deadline", "entry", "id", "is_finished", "nbytes", "promise", "template", "tries",
    )  # fmt: skip

    def __init__(
        self, request: Request, options: Options, promise: Promise, memory: ClientMemory | None = None
    ) -> None:
        elements = arrays.row_major_bytes if memory is None else memory.elements
        family, operator, tensors, outputs, function, timeout, of = request
        if timeout is None:
            timeout, head = options.timeout, options.wire
        else:
            timeout = seconds(timeout)
            head = wire(options, timeout)
        specs: list[tuple[str, arrays.Spec | str]] = []
        data: list[bytes | memoryview] = []
        make: arrays.Maker = arrays.numpy_rows
        for name, value in tensors.items() if of is None else [*of.tensors.items(), *tensors.items()]:
            if type(value) is np.ndarray and (dtype := arrays.WIRE_DTYPES.get(value.dtype)) is not None:
                specs.append((name, (dtype, value.shape)))
                data.append(value.tobytes() if memory is None else memory.elements(value))
            elif isinstance(value, str):
                specs.append((name, str(value)))
            else:
                spec, content, maker = arrays.serialize(function, name, value, elements)
                specs.append((name, spec))
                data.append(content)
                if maker is not None and make is arrays.numpy_rows:
                    make = maker
        inner = None if of is None else (of.family, of.operator.SerializeToString(), len(of.tensors))
        signature = (family, operator.SerializeToString(), tuple(specs), inner)
        template = call_template((signature, head, function, outputs, make), options)
        self.begin(template, data, _NEVER if timeout is None else _now() + timeout, promise)

    def begin(
        self, template: CallTemplate, data: Sequence[bytes | memoryview], deadline: float, promise: Promise
    ) -> None:
        """Makes a new call of it."""
        self.template = template
        self.entry = entry = template.entry
        self.data: Sequence[bytes | memoryview] = data
        self.nbytes = entry.nbytes
        self.deadline = deadline
        self.promise = promise
        self.id = self.tries = 0
        self.connection: Any = None
        self.is_finished = False

    @property
    def function(self) -> str:
        """The operator called, for errors."""
        return self.template.function

    def finish(self) -> Promise:
        """Ends it, and lets go of what it holds; returns its promise."""
        promise, self.promise = self.promise, NOBODY
        self.is_finished = True
        self.connection = None
        self.data = ()
        return promise

    def renew(self, now: float) -> None:
        """Tells the server only the time that is left, for sending the call again."""
        seconds_left = None if self.deadline == math.inf else max(self.deadline - now, 1e-3)
        template = self.template
        self.entry = call_entry(template.signature, wire(template.options, seconds_left))


class Nobody:
    """The promise of a call that nobody waits for."""

    def done(self) -> bool:
        """See Promise."""
        return True

    def set_result(self, result: Any, /) -> None:
        """See Promise."""

    def set_exception(self, exception: Any, /) -> None:
        """See Promise."""


NOBODY = Nobody()


def single_calls(calls: Sequence[Call]) -> Message:
    """A StreamRequest of calls by themselves: its bytes in pieces, and how many they are."""
    nbytes = sum(call.entry.nbytes for call in calls)
    opening = prefix(1, nbytes)
    parts: list[bytes | memoryview] = [opening]
    for call in calls:
        parts += call.entry.parts(call.id, call.data)
    return parts, len(opening) + nbytes


def call_groups(calls: Sequence[Call]) -> Message:
    """As `single_calls`, of groups of calls that are alike. Those that bring weights along are groups of one."""
    groups: dict[Any, list[Call]] = {}
    for call in calls:
        groups.setdefault(call if call.template.shares_inputs else call.entry, []).append(call)
    parts: list[bytes | memoryview] = [b""]
    nbytes = 0
    for group in groups.values():
        pieces, length = group[0].entry.group_parts([call.id for call in group], [call.data for call in group])
        parts += pieces
        nbytes += length
    parts[0] = opening = prefix(1, nbytes)
    return parts, len(opening) + nbytes
