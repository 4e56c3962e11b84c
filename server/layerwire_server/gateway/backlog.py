"""Frames that wait while no worker is live, and which of their calls are given up meanwhile.

It knows calls' ids and time limits, and how an error is answered; nothing of workers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable

from layerwire.errors import (
    CallCancelledError,
    DeadlineExceededError,
    LayerwireError,
    UnavailableError,
    to_status,
)
from layerwire.v1 import layerwire_pb2
from layerwire.wire.protobuf import MalformedError
from layerwire_server.gateway.pending import Pending
from layerwire_server.gateway.spans import (
    UNARY_NUMBERS,
    Span,
    cancelled_ids,
    contents,
    envelope,
    group_ids,
    timeout_seconds,
)
from layerwire_server.link import Kind

_RETRY_SECONDS = 1.0


class Backlog:
    """The frames that wait.

    Args:
        unavailable_after_seconds: how long a frame may.
    """

    def __init__(self, unavailable_after_seconds: float) -> None:
        self._unavailable_after_seconds = unavailable_after_seconds
        self._entries: dict[int, _WaitingFrame] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._entries)

    def add(self, pending: Pending, now: float) -> None:
        """A frame waits from now on."""
        self._entries[pending.number] = _WaitingFrame(pending, now + self._unavailable_after_seconds)

    def remove(self, pending: Pending) -> bool:
        """A frame waits no more; says whether it did."""
        return self._entries.pop(pending.number, None) is not None

    def remove_all(self) -> list[Pending]:
        """All frames that waited."""
        entries, self._entries = self._entries, {}
        return [entry.pending for entry in entries.values()]

    def cancel(self, frames: Iterable[Pending], payload: bytes) -> None:
        """Answers CANCELLED to those calls of these frames that a StreamRequest cancels."""
        with contextlib.suppress(MalformedError):
            ids = cancelled_ids(payload)
            for pending in list(frames):
                entry = self._entries.get(pending.number)
                if entry is not None and entry.give_up(
                    entry.ordinals_of(ids), CallCancelledError("cancelled by the client")
                ):
                    del self._entries[pending.number]

    def expire(self, now: float) -> int:
        """Ends calls and frames whose time is up; for how many frames, and calls with a deadline, no worker came."""
        unavailable = 0
        for number, entry in list(self._entries.items()):
            late = entry.late(now)
            unavailable += len(late)
            if late and entry.give_up(late, DeadlineExceededError("the deadline passed before a worker was there")):
                del self._entries[number]
            elif now >= entry.until:
                del self._entries[number]
                unavailable += 1
                entry.pending.fail(UnavailableError("the server has no worker now", retry_after_seconds=_RETRY_SECONDS))
        return unavailable


class _WaitingFrame:
    """One frame that waits. A frame whose calls can't be made out waits as a whole."""

    __slots__ = ("_deadlines", "_ids", "pending", "until")

    def __init__(self, pending: Pending, until: float) -> None:
        self.pending = pending
        self.until = until
        self._deadlines: list[tuple[float, int]] = []  # and ordinals; the earliest last
        self._ids: dict[int, list[int]] | None = None  # ordinals by id, once they are asked for
        with contextlib.suppress(MalformedError):
            self._read_deadlines()

    def late(self, now: float) -> list[int]:
        """The ordinals of calls not answered whose deadlines have passed since it was asked last."""
        late = []
        while self._deadlines and self._deadlines[-1][0] <= now:
            late.append(self._deadlines.pop()[1])
        return [ordinal for ordinal in late if ordinal not in self.pending.answered_ordinals]

    def ordinals_of(self, ids: set[int]) -> list[int]:
        """The ordinals of the calls with these ids."""
        if self._ids is None:
            self._ids = {}
            with contextlib.suppress(MalformedError):
                for ordinal, call_id in enumerate(_ids(self.pending.payload)):
                    if call_id is not None:
                        self._ids.setdefault(call_id, []).append(ordinal)
        return [ordinal for call_id in ids & self._ids.keys() for ordinal in self._ids[call_id]]

    def give_up(self, ordinals: Iterable[int], error: LayerwireError) -> bool:
        """Answers calls with an error, unless they are answered; says whether nothing is left of the frame."""
        pending = self.pending
        if pending.kind is Kind.UNARY:
            pending.fail(error)
            return True
        open_ordinals = [ordinal for ordinal in ordinals if ordinal not in pending.answered_ordinals]
        if not open_ordinals:
            return False
        ids = _ids(pending.payload)
        pending.answered_ordinals.update(open_ordinals)
        pending.quarantined_ordinals.difference_update(open_ordinals)
        last = len(pending.answered_ordinals) == len(ids)
        pending.answer(_answers([ids[ordinal] or 0 for ordinal in open_ordinals], error), last)
        return last

    def _read_deadlines(self) -> None:
        pending = self.pending
        payload = pending.payload
        if pending.kind is Kind.UNARY:
            number = UNARY_NUMBERS.get(pending.family)
            if number is not None:
                self._note((0,), number, (0, len(payload)))
            return
        places = contents(payload)
        for ordinal, span in enumerate(places.calls):
            self._note_call(range(ordinal, ordinal + 1), span)
        for first, group in places.groups_from():
            self._note_call(range(first, first + group.call_count), group.template)
        self._deadlines.sort(reverse=True)

    def _note_call(self, ordinals: Iterable[int], call: Span) -> None:
        with contextlib.suppress(MalformedError):
            _, number, request = envelope(self.pending.payload, call)
            self._note(ordinals, number, request)

    def _note(self, ordinals: Iterable[int], number: int, request: Span) -> None:
        pending = self.pending
        deadline = min(pending.deadline, pending.arrived + timeout_seconds(pending.payload, number, request))
        if deadline < math.inf:
            self._deadlines.extend((deadline, ordinal) for ordinal in ordinals)


def _ids(payload: bytes | memoryview) -> list[int | None]:
    """The ids of a message's calls by ordinal, None where one can't be made out."""
    ids: list[int | None] = []
    places = contents(payload)
    for span in places.calls:
        try:
            ids.append(envelope(payload, span).call_id)
        except MalformedError:
            ids.append(None)
    for group in places.groups:
        ids.extend(group_ids(payload, group))
    return ids


def _answers(ids: Iterable[int], error: LayerwireError) -> bytes:
    status = layerwire_pb2.Status.FromString(to_status(error).SerializeToString())
    answers = [layerwire_pb2.Answer(id=call_id, status=status) for call_id in ids]
    return layerwire_pb2.StreamResponse(answers=answers).SerializeToString()
