"""Writes the answers to one frame as its calls finish, and sends them in pieces of a bearable size.

It knows the link and the answers' messages; neither lanes nor devices.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from layerwire.errors import LayerwireError, ResourceExhaustedError, to_status
from layerwire.v1 import layerwire_pb2
from layerwire.wire import protobuf
from layerwire.wire.framing import Entry
from layerwire_server.link import Family, Flag, Frame, Kind, Link, request_id
from layerwire_server.worker.call import ID_BYTES, CallGroup, id_numbers
from layerwire_server.worker.plan import GroupAnswer, Plan
from layerwire_server.worker.request_kinds import KINDS_BY_RPC, NATIVE_KINDS
from layerwire_server.worker.request_kinds.kind import Pieces
from layerwire_server.worker.running.device import Phases

_FLUSH_BYTES = 1024**2
_GROUPS = layerwire_pb2.StreamResponse.GROUPS_FIELD_NUMBER


class Answerable(Protocol):
    """Calls of a frame that follow each other: those that wait or run, or requests that never came to that."""

    @property
    def ordinal(self) -> int:
        """Of the first in the frame."""

    @property
    def count(self) -> int:
        """How many."""

    @property
    def ids(self) -> bytes:
        """Theirs."""

    @property
    def is_grouped(self) -> bool:
        """Whether they came in a CallGroup."""


class Reply:
    """What a frame is still to be answered with.

    Attributes:
        number: the frame's, as `kind`, `flags` and `stream` are.
        groups: its calls that are not answered, but those whose neighbours in a group wait on while they run.
        unanswered_count: how many answers are owed; the last makes `flush` say so.
        is_dropped: whether nobody wants the answers any more.

    Args:
        link: to the gateway that sent the frame.
        frame: the frame.
        unanswered_count: see above.
        max_message_bytes: most bytes that its answers may have in one message.
    """

    __slots__ = (
        "_delay_seconds", "_family", "_max_message_bytes", "_nbytes", "_ordinals", "_pieces",
        "flags", "groups", "is_dropped", "kind", "link", "number", "stream", "unanswered_count",
    )  # fmt: skip

    def __init__(self, link: Link, frame: Frame, unanswered_count: int, max_message_bytes: int) -> None:
        self.link = link
        self._max_message_bytes = max_message_bytes
        self._delay_seconds = time.monotonic() - frame.arrived  # so gateways learn how far behind the worker is
        self.number = frame.frame
        self.kind = frame.kind
        self.flags = frame.flags
        self.stream = frame.stream
        self.groups: set[CallGroup] = set()
        self.unanswered_count = unanswered_count
        self.is_dropped = False
        self._family = frame.family
        self._pieces: list[bytes | memoryview] = []
        self._ordinals: list[range] = []
        self._nbytes = 0

    @property
    def request_id(self) -> str:
        """The frame's number as the id of a request in logs."""
        return request_id(self.number)

    def answer(self, call: CallGroup, outputs: list[memoryview], phases: Phases, batch: BatchTiming) -> None:
        """Adds the answers of calls that ran.

        Raises:
            ResourceExhaustedError: no message may be as large as one of them; nothing was added.
        """
        timing = batch.of_call(call, phases) if call.options.return_timing else b""
        if call.is_grouped:
            self._answer_group(call, outputs, timing)
            return
        if call.count > 1:
            self._answer_singles(call, outputs, timing)
            return
        kind = KINDS_BY_RPC.get(self._family)
        write = _write_answer if kind is None else kind.write_response
        self._add(call, *self._within_message(call, *write(call, outputs, timing)))

    def _answer_singles(self, calls: CallGroup, outputs: Sequence[memoryview], timing: bytes) -> None:
        """Calls that came singly and ran as one."""
        entry = _entry(calls.plan, timing)
        self._within_message(calls, [], entry.nbytes)
        most = max(min(_FLUSH_BYTES, self._max_message_bytes) // entry.nbytes, 1)
        for start in range(0, calls.count, most):
            some = calls if calls.count <= most else calls.part(start, min(start + most, calls.count))
            stop = start + some.count
            sizes = [nbytes for nbytes, _ in calls.plan.output_bytes]
            data = [output[size * start : size * stop] for output, size in zip(outputs, sizes, strict=True)]
            self._add(some, [_answers(entry, some.ids, data)], entry.nbytes * some.count)

    def _answer_group(self, call: CallGroup, outputs: Sequence[memoryview], timing: bytes) -> None:
        plan = call.plan
        answer = plan.group_answer
        if answer is None or timing:
            answer = NATIVE_KINDS[plan.operator.family].group_answer(plan, call.count, timing)
        elif answer.call_count != call.count:
            answer = GroupAnswer.of(answer.template, answer.outputs, answer.sizes, call.count)
        if not timing:
            plan.group_answer = answer
        room = call.room
        ranges = None if room is None else room.put([outputs[place] for place in answer.outputs], self.link.is_up)
        if ranges is not None:
            group = protobuf.field(_GROUPS, answer.template + protobuf.field(2, call.ids) + ranges)
            self._add(call, [group], len(group))
            return
        if answer.nbytes <= self._max_message_bytes:
            pieces: list[bytes | memoryview] = [answer.gaps[0], call.ids]
            for place, gap in zip(answer.outputs, answer.gaps[1:], strict=True):
                pieces += (gap, outputs[place])
            self._add(call, pieces, answer.nbytes)
            return
        middle = call.count // 2
        first = call.part(0, max(middle, 1))
        sizes = [nbytes * first.count for nbytes, _ in plan.output_bytes]
        heads = [output[:size] for output, size in zip(outputs, sizes, strict=True)]
        single = self._within_message(first, *_write_answer(first.part(0, 1), heads, timing))
        if not middle:
            self._add(call, *single)
            return
        self._answer_group(first, heads, timing)
        tails = [output[size:] for output, size in zip(outputs, sizes, strict=True)]
        self._answer_group(call.part(middle, call.count), tails, timing)

    def _within_message(self, call: CallGroup, pieces: list[bytes | memoryview], nbytes: int) -> Pieces:
        if nbytes > self._max_message_bytes:
            title = call.plan.operator.title
            rule = f"{nbytes} bytes, over the server's --max-message-bytes {self._max_message_bytes}"
            raise ResourceExhaustedError(f"{title}: the answer takes {rule}", operator=title)
        return pieces, nbytes

    def fail(self, calls: Answerable, error: LayerwireError) -> None:
        """Adds the answers of calls that failed."""
        if self.kind is Kind.UNARY:
            self.refuse(error)
            return
        status = layerwire_pb2.Status.FromString(to_status(error).SerializeToString())
        if calls.is_grouped:
            template = layerwire_pb2.Answer(status=status).SerializeToString()
            response = layerwire_pb2.StreamResponse(groups=[{"template": template, "ids": calls.ids}])
        else:
            answers = [layerwire_pb2.Answer(id=number, status=status) for number in id_numbers(calls.ids)]
            response = layerwire_pb2.StreamResponse(answers=answers)
        message = response.SerializeToString()
        self._add(calls, [message], len(message))

    def announce(self, ordinal: int | None) -> None:
        """Announces what runs next of an isolated frame: its decoding, or a call."""
        self.link.send(Frame(Kind.STARTED, self.number, ordinals=() if ordinal is None else (ordinal,)))

    def refuse(self, error: LayerwireError) -> None:
        """Answers the frame as a whole with an error, at once."""
        status = to_status(error).SerializeToString()
        self.groups.clear()
        self.unanswered_count = 0
        self._send(Flag.LAST | Flag.ERROR, [status], ())

    def send_message(self, message: bytes) -> None:
        """Answers a unary frame with a message, at once."""
        self.unanswered_count = 0
        self._send(Flag.LAST, [message], (0,))

    def flush(self) -> None:
        """Sends what has been gathered. The last message names no ordinals: it answers all that were left."""
        if self._ordinals:
            pieces, runs = self._pieces, self._ordinals
            self._pieces, self._ordinals, self._nbytes = [], [], 0
            if self.unanswered_count:
                self._send(Flag.NONE, pieces, tuple(ordinal for run in runs for ordinal in run))
            else:
                self._send(Flag.LAST, pieces, ())

    def forget(self, call: CallGroup) -> None:
        """Knows calls no more, which are answered, or will be in other pieces."""
        self.groups.discard(call)

    def _add(self, calls: Answerable, pieces: list[bytes | memoryview], nbytes: int) -> None:
        if self._nbytes + nbytes > self._max_message_bytes:
            self.flush()
        self._nbytes += nbytes
        self.groups.discard(calls)
        self.unanswered_count -= calls.count
        self._pieces += pieces
        self._ordinals.append(range(calls.ordinal, calls.ordinal + calls.count))
        if self._nbytes > _FLUSH_BYTES and self.unanswered_count:
            self.flush()

    def _send(self, flags: Flag, pieces: list[bytes | memoryview], ordinals: tuple[int, ...]) -> None:
        answers = Frame(Kind.ANSWERS, self.number, b"", flags, Family.NONE, ordinals, 0, self._delay_seconds)
        self.link.send(answers, pieces)


class BatchTiming:
    """What all calls of a batch share of their timing.

    Args:
        launch_time: when it was launched, in seconds of CLOCK_MONOTONIC.
        calls: calls in it.
        rows: rows in it.
        worker: number of the worker.
        device: the device's name.
    """

    __slots__ = ("_calls", "_device", "_launch_time", "_rows", "_worker")

    def __init__(self, launch_time: float, calls: int, rows: int, worker: int, device: str) -> None:
        self._launch_time = launch_time
        self._calls = calls
        self._rows = rows
        self._worker = worker
        self._device = device

    def of_call(self, call: CallGroup, phases: Phases) -> bytes:
        """The serialized `timing` field of a call's response."""
        timing = layerwire_pb2.Timing(
            queue_seconds=max(self._launch_time - call.arrival_time, 0.0),
            copy_in_seconds=phases.copy_in_seconds,
            kernel_seconds=phases.kernel_seconds,
            copy_out_seconds=phases.copy_out_seconds,
            batch_calls=self._calls,
            batch_rows=self._rows,
            worker=self._worker,
            device=self._device,
        ).SerializeToString()
        return protobuf.prefix(15, len(timing)) + timing


def _write_answer(call: CallGroup, outputs: list[memoryview], timing: bytes) -> Pieces:
    """One of a StreamResponse's answers."""
    entry = _entry(call.plan, timing)
    return entry.parts(id_numbers(call.ids)[0], outputs), entry.nbytes


def _answers(entry: Entry, ids: bytes, data: Sequence[memoryview]) -> memoryview:
    """The bytes of an entry for each id: rows of a table, whose columns but those of ids and data have one value."""
    count = len(ids) // ID_BYTES
    table = np.empty((count, entry.nbytes), np.uint8)
    at = 0
    for is_alike, content in (
        (True, entry.head), (False, ids), (True, entry.gaps[0]),
        *(part for piece, gap in zip(data, entry.gaps[1:], strict=True) for part in ((False, piece), (True, gap))),
    ):  # fmt: skip
        width = len(content) if is_alike else len(content) // count
        if width:
            column = np.frombuffer(content, np.uint8)
            table[:, at : at + width] = column if is_alike else column.reshape(count, width)
            at += width
    return table.reshape(-1).data


def _entry(plan: Plan, timing: bytes) -> Entry:
    """What one of a StreamResponse's answers is made from."""
    template = plan.answer_template if not timing else None
    if template is None:
        template = NATIVE_KINDS[plan.operator.family].answer_template(plan, timing)
        if not timing:
            plan.answer_template = template
    return template
