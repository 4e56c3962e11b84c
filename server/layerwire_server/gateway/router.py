"""Which worker gets a frame, and what becomes of the frame when that worker dies.

It knows no gRPC, no sockets, no clock and nothing of the bytes. A frame is kept until its last answer is there. What a
dead worker left goes to a live one, its calls one at a time (ISOLATE), without those that were answered. A call that
ran alone when a second worker died is QUARANTINED, and so is the same call when it comes again: it is answered
INTERNAL, and the rest of the frame goes on. A frame that wasn't running then is innocent and travels on, however many
deaths it sees.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Collection
from typing import Protocol

from layerwire.errors import InternalError
from layerwire_server.gateway.pending import DECODING, Pending
from layerwire_server.gateway.quarantine import Quarantine
from layerwire_server.gateway.waiting_room import WaitingRoom
from layerwire_server.link import Flag, Frame, Kind, request_id
from layerwire_server.metrics import Metrics

_FRAME_LOAD_BYTES = 16384  # what a frame weighs beside its bytes when workers are compared
_LAST, _ERROR = int(Flag.LAST), int(Flag.ERROR)


class Worker(Protocol):
    """Where frames go."""

    def send(self, frame: Frame) -> None:
        """Sends it; to a worker that is gone, nothing happens, for `down` follows."""


class Seat:
    """A live worker and the frames it has."""

    __slots__ = ("load", "pending", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.pending: dict[int, Pending] = {}
        self.load = 0


class Router:
    """All frames of a gateway, and the live workers.

    Args:
        unavailable_after_seconds: how long a frame waits while no worker is live.
    """

    def __init__(self, unavailable_after_seconds: float, metrics: Metrics) -> None:
        self._seats: dict[Worker, Seat] = {}
        self._waiting = WaitingRoom(unavailable_after_seconds)
        self._quarantine = Quarantine()
        # Numbers are unique over restarts and gateways, so that they serve as request ids in all logs.
        self._numbers = itertools.count(secrets.randbits(31) << 32 | 1)
        self._retried = metrics.counter("layerwire_retried_frames_total")
        self._quarantined = metrics.counter("layerwire_quarantined_requests_total")
        self._dropped = metrics.counter("layerwire_dropped_answers_total")
        self._unavailable = metrics.counter("layerwire_rejected_total", reason="unavailable")

    @property
    def live(self) -> int:
        """How many workers are live."""
        return len(self._seats)

    def next_number(self) -> int:
        """A number for a frame, a stream or a canary."""
        return next(self._numbers)

    def submit(self, pending: Pending) -> None:
        """Takes a new frame in and sends it, or keeps it until there is a worker."""
        pending.number = next(self._numbers)
        self._place(pending, pending.arrived)

    def abandon(self, pending: Pending) -> None:
        """Nobody wants the answers any more."""
        seat = pending.seat
        if self._finish(pending) and seat is not None:
            seat.worker.send(Frame(Kind.CANCEL_FRAME, pending.number, stream=pending.stream))

    def cancel_calls(self, frames: Collection[Pending], stream: int, payload: bytes) -> None:
        """Passes on which calls of a stream, whose unfinished frames are given, are no longer wanted."""
        if self._waiting:
            self._waiting.cancel(frames, payload)
        for seat in {pending.seat for pending in frames if pending.seat is not None}:
            seat.worker.send(Frame(Kind.CANCEL_CALLS, payload=payload, stream=stream))

    def up(self, worker: Worker, now: float) -> None:
        """A worker is live from now on."""
        self._seats[worker] = Seat(worker)
        for pending in self._waiting.leave_all():
            self._place(pending, now)

    def down(self, worker: Worker, now: float) -> None:
        """A worker is gone, or not to be trusted any more; its frames go elsewhere."""
        seat = self._seats.pop(worker, None)
        if seat is None:
            return
        for pending in list(seat.pending.values()):
            pending.seat = None
            self._after_death(pending, now)

    def received(self, worker: Worker, frame: Frame) -> None:
        """A worker sent ANSWERS or STARTED."""
        seat = self._seats.get(worker)
        pending = None if seat is None else seat.pending.get(frame.frame)
        if pending is None or not pending.answered.isdisjoint(frame.ordinals):
            if frame.kind is Kind.ANSWERS:
                self._dropped.add()
            return
        if frame.kind is Kind.STARTED:
            if pending.isolated:
                pending.running = frame.ordinals[0] if frame.ordinals else DECODING
            return
        flags = int(frame.flags)
        if flags & _LAST:
            self._finish(pending)
        else:
            pending.answered.update(frame.ordinals)
            if pending.running in pending.answered:
                pending.running = None
        if flags & _ERROR:
            pending.fail(bytes(frame.payload))
        else:
            pending.answer(bytes(frame.payload), bool(flags & _LAST))

    def expire(self, now: float) -> None:
        """Ends what waited too long for a worker."""
        self._unavailable.add(self._waiting.expire(now))

    def _place(self, pending: Pending, now: float) -> None:
        if self._quarantine:
            guilty = self._quarantine.guilty(pending.payload, pending.family, now)
            pending.quarantined |= guilty - pending.answered
        if not self._seats:
            self._waiting.enter(pending, now)
            return
        seat = min(self._seats.values(), key=_load) if len(self._seats) > 1 else next(iter(self._seats.values()))
        pending.seat = seat
        seat.pending[pending.number] = pending
        seat.load += _FRAME_LOAD_BYTES + len(pending.payload)
        seat.worker.send(pending.frame())

    def _finish(self, pending: Pending) -> bool:
        """Forgets a frame; says whether it was there."""
        seat, pending.seat = pending.seat, None
        if seat is None:
            return self._waiting.leave(pending)
        seat.load -= _FRAME_LOAD_BYTES + len(pending.payload)
        return seat.pending.pop(pending.number, None) is not None

    def _after_death(self, pending: Pending, now: float) -> None:
        running, pending.running = pending.running, None
        if running is not None:
            self._quarantined.add()
            if running != DECODING or pending.kind is Kind.UNARY:
                self._quarantine.learn(pending.payload, pending.family, max(running, 0), now)
            if running == DECODING or pending.kind is Kind.UNARY:
                error_id = request_id(pending.number)
                pending.fail(InternalError(f"workers died of this request; error {error_id}", error_id=error_id))
                return
            pending.quarantined.add(running)
        pending.isolated = True
        self._retried.add()
        self._place(pending, now)


def _load(seat: Seat) -> int:
    return seat.load
