"""Calls that are alike, as they wait in a lane and run: one value with a count. A single call is a group of one.

It knows plans and what inputs are made of; neither messages nor lanes' order nor devices.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np

from layerwire_server.worker.client_memory import AnswerRoom
from layerwire_server.worker.lanes.lane import LaneItem
from layerwire_server.worker.plan import LaneKey, Plan
from layerwire_server.worker.weights.weights_cache import CachedWeights

ID_BYTES = 8
_UNCOPIED_BYTES = 16384  # of data, from which on some may stay where it is
_ALIGNMENT_BYTES = 16  # as that of bytes: kernels round by where their inputs lie
# bytes from the message, what the worker has cached, or nothing where an optional input was left out
Content: TypeAlias = bytes | memoryview | CachedWeights | None


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


class CallGroup(LaneItem):
    """Checked calls that differ in their ids and data only. What waits of a group, or runs of it, is a group too.

    Attributes:
        plan: of each of the calls.
        contents: one an input of the operator; the data of all calls, one after another, where each brings its own.
        options: how each is to be treated.
        model: in whose statistics they count.
        output_selection: of the Open Inference Protocol alone.
        ordinal: of the first call in its frame; the others follow it.
        ids: the calls' ids, 8 bytes each, as they came; b"" of a call that came in no stream.
        is_grouped: whether they came in a CallGroup, and are answered by an AnswerGroup.
        room: where the answer of a single call may be put.
        reply: the Reply that gets their answers, which knows them.
    """

    __slots__ = (
        "contents", "ids", "is_grouped", "model", "options", "ordinal", "output_selection", "plan", "reply", "room",
    )  # fmt: skip

    key: LaneKey
    plan: Plan
    contents: list[Content]
    options: Options
    model: Model | None
    output_selection: OutputSelection | None
    ordinal: int
    ids: bytes
    is_grouped: bool
    room: AnswerRoom | None
    reply: Any

    @property
    def request_id(self) -> str:
        """The id of their request in logs; "" of calls that came in no frame."""
        return "" if self.reply is None else str(self.reply.request_id)

    def part(self, start: int, stop: int) -> Self:
        """Some of the calls as a group of their own."""
        piece = type(self)()
        for name in _FIELDS:
            setattr(piece, name, getattr(self, name))
        piece.keep(start, stop)
        return piece

    def keep(self, start: int, stop: int) -> None:
        """Gives all other calls up."""
        if stop - start == self.count:
            return
        self.contents = content_slices(self.contents, self.plan.input_bytes, start, stop)
        self.ids = self.ids[ID_BYTES * start : ID_BYTES * stop]
        self.ordinal += start
        self.order += start
        self.count = stop - start


_FIELDS = (*LaneItem.__slots__, *CallGroup.__slots__)


def content_slices(contents: Sequence[Content], input_bytes: Sequence[int], start: int, stop: int) -> list[Content]:
    """The contents of some calls of a group."""
    return [
        data_slice(content, nbytes * start, nbytes * stop) if isinstance(content, bytes | memoryview) else content
        for content, nbytes in zip(contents, input_bytes, strict=True)
    ]


def data_slice(data: bytes | memoryview, start: int, stop: int) -> bytes | memoryview:
    """Some bytes, where a tensor may lie; uncopied if they are many and lie so already."""
    if stop - start < _UNCOPIED_BYTES:
        piece = data[start:stop]
        return piece if piece.__class__ is bytes else bytes(piece)
    view = memoryview(data)[start:stop]
    address = np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    return bytes(view) if address % _ALIGNMENT_BYTES else view


def id_numbers(ids: bytes) -> tuple[int, ...]:
    """The numbers that ids of 8 bytes each stand for."""
    return struct.unpack(f"<{len(ids) // ID_BYTES}Q", ids)
