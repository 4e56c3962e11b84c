"""A call's options as it takes them along, and the timing that its answer can bring.

It knows the contract's CallOptions and Timing; neither operators nor channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from layerwire.errors import invalid
from layerwire.v1 import layerwire_pb2 as messages
from layerwire.wire.protobuf import prefix

Answer = TypeVar("Answer")

MAX_PRIORITY = 10
_FOREVER_SECONDS = 1e9  # thirty years; longer ones don't go to the server


@dataclass(frozen=True, slots=True)
class Options:
    """How a client's calls are treated.

    Attributes:
        timeout: seconds until an answer is no longer wanted; None: never.
        priority: which of the waiting calls goes first, -10 to 10; larger is sooner.
        deterministic: whether answers are bit-identical whatever other calls share the batch.
        timing: whether calls answer with `Timed` in place of the bare value.
        wire: all this as field 1 of a request.

    Raises:
        TypeError: one is of a wrong type.
        InvalidArgumentError: one is out of range.
    """

    timeout: float | None = 30.0
    priority: int = 0
    deterministic: bool = False
    timing: bool = False
    wire: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.timeout is not None:
            seconds(self.timeout)
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise TypeError(f"options: priority must be an integer, got {type(self.priority).__name__}")
        if not -MAX_PRIORITY <= self.priority <= MAX_PRIORITY:
            raise invalid("options", "priority", f"must be -{MAX_PRIORITY} to {MAX_PRIORITY}, got {self.priority}")
        for name in ("deterministic", "timing"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"options: {name} must be True or False, got {getattr(self, name)!r}")
        object.__setattr__(self, "wire", wire(self, self.timeout))


class Timing(NamedTuple):
    """Where the time of a call went on the server; the seconds are the whole batch's, save the queue's."""

    queue_seconds: float
    copy_in_seconds: float
    kernel_seconds: float
    copy_out_seconds: float
    batch_calls: int
    batch_rows: int
    worker: int
    device: str

    @classmethod
    def from_message(cls, timing: messages.Timing) -> Timing:
        """The timing of an answer."""
        return cls(*(getattr(timing, name) for name in cls._fields))


class Timed(NamedTuple, Generic[Answer]):
    """What a call answers under `options(timing=True)`: `y, timing = lw.options(timing=True).relu(x)`."""

    value: Answer
    timing: Timing


def seconds(timeout: float) -> float:
    """A timeout in seconds.

    Raises:
        TypeError: it is no number.
        InvalidArgumentError: it isn't above 0.
    """
    if isinstance(timeout, bool) or not hasattr(type(timeout), "__float__"):
        raise TypeError(f"timeout must be a number of seconds, got {type(timeout).__name__}")
    value = float(timeout)
    if not value > 0:
        raise invalid("options", "timeout", f"must be above 0 seconds, got {value:g}")
    return value


@lru_cache(maxsize=1024)
def wire(options: Options, timeout: float | None) -> bytes:
    """The options as field 1 of a request, with this timeout in place of their own.

    The server gets the timeout rounded up to two digits, since each distinct one costs a template; the client itself
    keeps to the second.
    """
    message = messages.CallOptions(
        priority=options.priority, deterministic=options.deterministic, return_timing=options.timing
    )
    if timeout is not None and timeout < _FOREVER_SECONDS:
        message.timeout_seconds = _rounded_up(timeout)
    body = message.SerializeToString()
    return prefix(1, len(body)) + body if body else b""


def _rounded_up(timeout: float) -> float:
    digit = 10.0 ** (math.floor(math.log10(timeout)) - 1)
    return math.ceil(timeout / digit) * digit
