"""A call: what waits in a lane, and how it is to be treated.

It knows plans and what inputs are made of; neither messages nor lanes' order nor devices.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

from layerwire_server.worker.lanes.lane import Waiting
from layerwire_server.worker.plan import LaneKey, Plan
from layerwire_server.worker.weights.weights_cache import Held

# bytes from the message, what the worker holds, or nothing where an optional input was left out
Content: TypeAlias = bytes | Held | None
# an answer in pieces, data uncopied, and how many bytes they are
Written: TypeAlias = tuple[list[bytes | memoryview], int]


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


class Wanted(NamedTuple):
    """What a call of the Open Inference Protocol is to be answered with: the request's id, and which outputs."""

    request_id: str
    outputs: tuple[int, ...]


class Call(Waiting):
    """A checked call. `origin` is whoever is to get its answer; `contents` stand one an input of the operator."""

    __slots__ = ("call_id", "contents", "model", "options", "ordinal", "origin", "plan", "wanted")

    key: LaneKey
    plan: Plan
    contents: list[Content]
    options: Options
    model: Model | None  # whose statistics it counts in
    wanted: Wanted | None  # of the Open Inference Protocol alone
    call_id: int
    ordinal: int
    origin: Any  # the Reply that is to get the answer

    @property
    def request(self) -> str:
        """The id of its request in logs."""
        origin = getattr(self, "origin", None)
        return "" if origin is None else str(origin.frame.id)
