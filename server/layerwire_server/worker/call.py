"""A call: what waits in a lane, and how it is to be treated.

It knows plans and what inputs are made of; neither messages nor lanes' order nor devices.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

from layerwire_server.worker.lanes.lane import LaneItem
from layerwire_server.worker.plan import LaneKey, Plan
from layerwire_server.worker.weights.weights_cache import CachedWeights

# bytes from the message, what the worker has cached, or nothing where an optional input was left out
Content: TypeAlias = bytes | CachedWeights | None


class Options(NamedTuple):
    """A call's CallOptions, checked."""

    timeout_seconds: float = math.inf
    priority: int = 0
    deterministic: bool = False
    return_timing: bool = False


class Model(NamedTuple):
    """A program of the store that a call names, as a model of the Open Inference Protocol."""

    name: str
    version: int


class OutputSelection(NamedTuple):
    """What a call of the Open Inference Protocol is to be answered with: the request's id, and which outputs."""

    request_id: str
    outputs: tuple[int, ...]


class Call(LaneItem):
    """A checked call. `contents` stand one an input of the operator."""

    __slots__ = ("call_id", "contents", "model", "options", "ordinal", "output_selection", "plan", "reply")

    key: LaneKey
    plan: Plan
    contents: list[Content]
    options: Options
    model: Model | None  # whose statistics it counts in
    output_selection: OutputSelection | None  # of the Open Inference Protocol alone
    call_id: int
    ordinal: int
    reply: Any  # the Reply that gets its answer, which knows calls

    @property
    def request_id(self) -> str:
        """The id of its request in logs; "" of a call that came in no frame."""
        reply = getattr(self, "reply", None)
        return "" if reply is None else str(reply.frame.id)
