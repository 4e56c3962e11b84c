"""A frame of calls goes to the worker with the least to do, and to another when that one dies.

It knows no gRPC, no sockets, no clock and nothing of the bytes. A frame is kept until its last answer is there. What a
dead worker left goes to a live one, its calls one at a time (ISOLATE), without those that were answered. A call that
ran alone when a second worker died by a fault of its own is QUARANTINED, and so is the same call when it comes again:
it is answered INTERNAL, and the rest of the frame goes on. Had the worker hung, run out of memory or ended itself, the
call is tried once more alone, where no others are if there is such a worker; a kill from outside says nothing. A frame
that wasn't running then is innocent and travels on, however many deaths it sees.
"""

from __future__ import annotations

import itertools
import mmap
import secrets
from collections.abc import Collection
from typing import Protocol

from layerwire.errors import InternalError
from layerwire_server.child.control import DeathCause
from layerwire_server.gateway.backlog import Backlog
from layerwire_server.gateway.pending import DECODING, Pending
from layerwire_server.gateway.quarantine import Quarantine
from layerwire_server.link import Flag, Frame, Kind, request_id
from layerwire_server.metrics import Metrics

_JUDGEMENT_SECONDS = 2.0
_SUSPECT_LOAD_BYTES = 1 << 40
_FRAME_LOAD_BYTES = 16384  # what a frame weighs beside its bytes when workers are compared
_LAST, _ERROR = int(Flag.LAST), int(Flag.ERROR)


class FrameLink(Protocol):
    """What frames to a worker go by."""

    def send(self, frame: Frame) -> None:
        """Sends it; to a worker that is gone, nothing happens, for `down` follows."""

    def room(self, nbytes: int) -> memoryview | None:
        """Where a large payload may be written that is to be sent; None if there is no such room now."""


class LiveWorker:
    """A live worker and the frames it has."""

    __slots__ = ("_delay_seconds", "_delay_time", "link", "load", "pending")

    def __init__(self, link: FrameLink) -> None:
        self.link = link
        self.pending: dict[int, Pending] = {}
        self.load = 0
        self._delay_seconds = 0.0
        self._delay_time = 0.0

    def observe_delay(self, seconds: float, now: float) -> None:
        """A frame that was answered now had waited so long before the worker read it."""
        self._delay_seconds = seconds
        self._delay_time = now

    def delay_seconds(self, now: float) -> float:
        """How long a frame will wait before the worker reads it: as the last one did, less the time since."""
        return max(self._delay_seconds - (now - self._delay_time), 0.0) if self.pending else 0.0


class Router:
    """All frames of a gateway, and the live workers.

    Args:
        unavailable_after_seconds: how long a frame waits while no worker is live.
    """

    def __init__(self, unavailable_after_seconds: float, metrics: Metrics) -> None:
        self._live: dict[FrameLink, LiveWorker] = {}
        self._backlog = Backlog(unavailable_after_seconds)
        self._quarantine = Quarantine()
        # Frames of which a call ran alone when their worker died, nobody knows yet of what: link, frame, since when.
        self._witnesses: dict[int, tuple[FrameLink, Pending, float]] = {}
        # Numbers are unique over restarts and gateways, so that they serve as request ids in all logs.
        self._numbers = itertools.count(secrets.randbits(31) << 32 | 1)
        self._retries = metrics.counter("layerwire_retried_frames_total")
        self._quarantine_count = metrics.counter("layerwire_quarantined_requests_total")
        self._drops = metrics.counter("layerwire_dropped_answers_total")
        self._copied_bytes = metrics.counter("layerwire_copied_bytes_total", place="to_message")
        self._unavailable = metrics.counter("layerwire_rejected_total", reason="unavailable")

    @property
    def live(self) -> int:
        """How many workers are live."""
        return len(self._live)

    def delay_seconds(self, now: float) -> float:
        """How long a new frame will wait before a worker reads it."""
        return min([worker.delay_seconds(now) for worker in self._live.values()], default=0.0)

    def next_number(self) -> int:
        """A number for a frame, a stream or a canary."""
        return next(self._numbers)

    def room(self, nbytes: int) -> tuple[memoryview, FrameLink | None]:
        """Memory for a large frame that is about to come, and the link by which it goes from there uncopied."""
        if self._live:
            link = min(self._live.values(), key=_load).link
            view = link.room(nbytes)
            if view is not None:
                return view, link
        return memoryview(mmap.mmap(-1, max(nbytes, 1)))[:nbytes], None

    def submit(self, pending: Pending) -> None:
        """Takes a new frame in and sends it, or keeps it until there is a worker."""
        pending.number = pending.number or next(self._numbers)
        self._place(pending, pending.arrived)

    def abandon(self, pending: Pending) -> None:
        """The answers are no longer of use."""
        worker = pending.holder
        if self._finish(pending) and worker is not None:
            worker.link.send(Frame(Kind.CANCEL_FRAME, pending.number, stream=pending.stream))

    def cancel_calls(self, frames: Collection[Pending], stream: int, payload: bytes) -> None:
        """Passes on which calls of a stream, whose unfinished frames are given, are cancelled."""
        if self._backlog:
            self._backlog.cancel(frames, payload)
        for worker in {pending.holder for pending in frames if pending.holder is not None}:
            worker.link.send(Frame(Kind.CANCEL_CALLS, payload=payload, stream=stream))

    def up(self, link: FrameLink, now: float) -> None:
        """A worker is live from now on."""
        self._live[link] = LiveWorker(link)
        for pending in self._backlog.remove_all():
            self._place(pending, now)

    def down(self, link: FrameLink, now: float, cause: DeathCause = DeathCause.FAULT) -> None:
        """A worker is gone, or not to be trusted any more; its frames go elsewhere.

        Args:
            link: of the worker.
            now: the time, in seconds.
            cause: what it died of; OUTSIDE also for one that is merely late. While that is UNKNOWN, frames of which a
                call ran alone wait for `judge`, but not for long.
        """
        worker = self._live.pop(link, None)
        if worker is None:
            return
        for pending in list(worker.pending.values()):
            pending.holder = None
            if cause is DeathCause.UNKNOWN and pending.running_ordinal is not None:
                self._witnesses[pending.number] = link, pending, now
            else:
                self._after_death(pending, now, cause)

    def judge(self, link: FrameLink, cause: DeathCause, now: float) -> None:
        """What a worker died of is known now."""
        for number, (its_link, pending, _) in list(self._witnesses.items()):
            if its_link is link:
                del self._witnesses[number]
                self._after_death(pending, now, cause)

    def deliver(self, link: FrameLink, frame: Frame, now: float = 0.0) -> None:
        """A worker sent ANSWERS or STARTED: its callers get the answers."""
        worker = self._live.get(link)
        pending = None if worker is None else worker.pending.get(frame.frame)
        if pending is None or not pending.answered_ordinals.isdisjoint(frame.ordinals):
            if frame.kind is Kind.ANSWERS:
                self._drops.add()
            return
        if frame.kind is Kind.STARTED:
            if pending.is_isolated:
                pending.running_ordinal = frame.ordinals[0] if frame.ordinals else DECODING
            return
        assert worker is not None
        worker.observe_delay(frame.arrived - (pending.sent_time - pending.arrived), now)
        flags = int(frame.flags)
        if flags & _LAST:
            self._finish(pending)
        else:
            pending.answered_ordinals.update(frame.ordinals)
            if pending.running_ordinal in pending.answered_ordinals:
                pending.running_ordinal = None
        payload = frame.payload
        if not (isinstance(payload, bytes) or (pending.takes_view(len(payload)) and not flags & _ERROR)):
            self._copied_bytes.add(len(payload))
            payload = bytes(payload)
        if flags & _ERROR:
            pending.fail(bytes(payload))
        else:
            pending.answer(payload, bool(flags & _LAST))

    def expire(self, now: float) -> None:
        """Ends what waited too long for a worker, or for a word on its death."""
        for number, (_, pending, since) in list(self._witnesses.items()):
            if now - since > _JUDGEMENT_SECONDS:
                del self._witnesses[number]
                self._after_death(pending, now, DeathCause.UNKNOWN)
        self._unavailable.add(self._backlog.expire(now))

    def _place(self, pending: Pending, now: float) -> None:
        if self._quarantine:
            guilty = self._quarantine.guilty(pending.payload, pending.family, now)
            pending.quarantined_ordinals |= guilty - pending.answered_ordinals
        if not self._live:
            self._backlog.add(pending, now)
            return
        worker = None if pending.link is None else self._live.get(pending.link)
        if worker is None:
            worker = min(self._live.values(), key=_load) if len(self._live) > 1 else next(iter(self._live.values()))
        pending.holder = worker
        pending.sent_time = now
        worker.pending[pending.number] = pending
        worker.load += _weight(pending)
        worker.link.send(pending.frame())

    def _finish(self, pending: Pending) -> bool:
        """Forgets a frame; says whether it was there."""
        worker, pending.holder = pending.holder, None
        if worker is None:
            return self._witnesses.pop(pending.number, None) is not None or self._backlog.remove(pending)
        worker.load -= _weight(pending)
        return worker.pending.pop(pending.number, None) is not None

    def _after_death(self, pending: Pending, now: float, cause: DeathCause) -> None:
        running, pending.running_ordinal = pending.running_ordinal, None
        is_proven = cause is DeathCause.FAULT or running in pending.suspect_ordinals
        if running is not None and cause is not DeathCause.OUTSIDE and not is_proven:
            pending.suspect_ordinals.add(running)
        elif running is not None and cause is not DeathCause.OUTSIDE:
            self._quarantine_count.add()
            if running != DECODING or pending.kind is Kind.UNARY:
                self._quarantine.learn(pending.payload, pending.family, max(running, 0), now)
            if running == DECODING or pending.kind is Kind.UNARY:
                error_id = request_id(pending.number)
                pending.fail(InternalError(f"workers died of this request; error {error_id}", error_id=error_id))
                return
            pending.quarantined_ordinals.add(running)
        pending.is_isolated = True
        self._retries.add()
        self._place(pending, now)


def _weight(pending: Pending) -> int:
    """What a frame adds to a worker's load; with a suspect in it, so much that others go elsewhere."""
    nbytes = _FRAME_LOAD_BYTES + len(pending.payload)
    return nbytes + _SUSPECT_LOAD_BYTES if pending.suspect_ordinals else nbytes


def _load(worker: LiveWorker) -> int:
    return worker.load
