"""The worker's loop: what each frame from a gateway leads to.

It joins the parts that know more: unpack (what is asked), lanes (what waits), dispatcher (what runs), reply (answers),
errands (what is asked besides calls).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable

from layerwire.errors import (
    CallCancelledError,
    InternalError,
    LayerwireError,
    ResourceExhaustedError,
)
from layerwire.v1 import layerwire_pb2
from layerwire_server.link import Flag, Frame, Kind, Link
from layerwire_server.worker.answering.reply import Reply
from layerwire_server.worker.call import Call
from layerwire_server.worker.dispatcher import Dispatcher, expired
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.lanes.lanes import Full, Lanes
from layerwire_server.worker.measures import Measures
from layerwire_server.worker.other_requests.models import Models
from layerwire_server.worker.other_requests.requests import Errands
from layerwire_server.worker.reading import frame as reading
from layerwire_server.worker.reading.call import CallDecoder
from layerwire_server.worker.running.device import Device
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import Absent, brought

log = logging.getLogger(__name__)

_BRINGINGS = 8  # program, weights, sizes: each is absent once, and again only if room is very short


class WorkerLoop:
    """A worker: link.Receiver for all its gateways, owner of its lanes and device."""

    def __init__(
        self,
        index: int,
        device: Device,
        lanes: Lanes[Call],
        decoder: CallDecoder,
        catalog: Catalog,
        measures: Measures,
        *,
        hello: bytes,
        hang_seconds: float,
        ran: Callable[[Batch[Call]], None],
        max_answer_bytes: int,
    ) -> None:
        self._lanes = lanes
        self._decoder = decoder
        self._measures = measures
        self._hello = hello
        self._max_answer_bytes = max_answer_bytes
        self._dispatcher = Dispatcher(index, device, lanes, measures, self._sent, ran, hang_seconds)
        models = Models(catalog, measures.statistics, lanes.limits)
        self._errands = Errands(device, decoder, catalog, models, self._dispatcher, max_answer_bytes)
        self._replies: dict[tuple[Link, int], Reply] = {}
        self._isolated: deque[tuple[Reply, Frame]] = deque()
        self._isolating = False
        self._kinds: dict[Kind, Callable[[Link, Frame], None]] = {
            Kind.CALLS: self._on_calls,
            Kind.UNARY: self._on_unary,
            Kind.CANCEL_FRAME: self._on_cancel_frame,
            Kind.CANCEL_CALLS: self._on_cancel_calls,
            **self._errands.kinds,
        }

    # what gateways say

    def on_connect(self, link: Link) -> None:
        """link.Receiver: a gateway is there."""
        link.send(Frame(Kind.HELLO, payload=self._hello))

    def on_frame(self, link: Link, frame: Frame) -> None:
        """link.Receiver: a gateway says something."""
        handle = self._kinds.get(frame.kind)
        if handle is None:
            log.error("a gateway sent a frame of kind %s", frame.kind)
            link.close()
        else:
            handle(link, frame)

    def on_disconnect(self, link: Link, error: Exception | None) -> None:
        """link.Receiver: a gateway is gone, and nobody wants its answers."""
        if error is not None:
            log.warning("link to a gateway broke: %s", error)
        for reply in [reply for reply in self._replies.values() if reply.link is link]:
            self._drop(reply)

    async def idle(self) -> None:
        """Returns when nothing waits or runs."""
        while self._replies or not self._errands.idle:  # once in a life
            await asyncio.sleep(0.01)

    @property
    def calls_in_flight(self) -> int:
        """Calls accepted and not answered, whether they wait or run."""
        return sum(reply.unanswered for reply in self._replies.values())

    async def watch(self) -> None:
        """Ends the process if the device hangs."""
        await self._dispatcher.watch()

    async def keep_store_swept(self) -> None:
        """Deletes now and then what nothing in the store points to any more; for one worker of all."""
        await self._errands.keep_swept()

    def close(self) -> None:
        """Ends the device's threads, once idle."""
        self._dispatcher.close()

    def _on_calls(self, link: Link, frame: Frame) -> None:
        reply = Reply(link, frame, 0, self._max_answer_bytes)
        self._replies[link, frame.frame] = reply
        if frame.flags & Flag.ISOLATE:
            self._isolated.append((reply, frame))
            if not self._isolating:
                self._isolating = True
                self._errands.start(self._run_isolated())
            return
        unread = self._unread(reply, frame)
        if unread is None:
            return
        now = time.monotonic()
        for found, quarantined in unread:
            if quarantined:
                self._refuse_quarantined(reply, found)
            else:
                self._admit(reply, frame, found, now)
        self._sent(reply)
        self._dispatcher.wake()

    def _on_unary(self, link: Link, frame: Frame) -> None:
        self._errands.families.get(frame.family, self._on_calls)(link, frame)

    def _on_cancel_frame(self, link: Link, frame: Frame) -> None:
        reply = self._replies.get((link, frame.frame))
        if reply is not None:
            self._drop(reply)

    def _on_cancel_calls(self, link: Link, frame: Frame) -> None:
        try:
            ids = set(reading.parse(layerwire_pb2.StreamRequest(), frame.payload).cancel.ids)
        except LayerwireError:
            return  # the gateway let it through by its first byte; it cancels nothing
        now = time.monotonic()
        for reply in [r for r in self._replies.values() if r.link is link and r.frame.stream == frame.stream]:
            for call in [call for call in reply.calls.values() if call.call_id in ids]:
                if self._lanes.withdraw(call, now):
                    self._fail(reply, call.ordinal, call.call_id, CallCancelledError("cancelled by the client"), call)
            self._sent(reply)

    # from frames to lanes

    def _unread(self, reply: Reply, frame: Frame) -> list[tuple[reading.Unread, bool]] | None:
        """The calls of a frame that are owed an answer; None if there are none, which has been answered."""
        try:
            unread = list(reading.owed(frame, reading.unread_calls(frame)))
        except LayerwireError as error:
            self._measures.failed(None, error)
            reply.refuse(error)
            del self._replies[reply.link, reply.frame.frame]
            return None
        reply.unanswered = len(unread)
        if not unread:
            reply.give(b"")
            del self._replies[reply.link, reply.frame.frame]
            return None
        return unread

    def _read(self, reply: Reply, frame: Frame, unread: reading.Unread) -> Call | None:
        """The call, ready to wait or run; None if it is wrong or too late, which its reply has been told.

        Raises:
            Absent: what it needs has to be brought first.
        """
        call = reading.read(self._decoder, frame, unread)
        if isinstance(call, LayerwireError):
            self._fail(reply, unread.ordinal, unread.call_id, call, None)
            return None
        call.origin = reply
        call.account = reply.link, frame.stream
        if call.deadline <= time.monotonic():
            self._fail(reply, call.ordinal, call.call_id, expired(call), call)
            return None
        return call

    def _admit(self, reply: Reply, frame: Frame, unread: reading.Unread, now: float) -> None:
        try:
            call = self._read(reply, frame, unread)
        except Absent as absent:
            self._errands.start(self._admit_later(reply, frame, unread, absent))
            return
        if call is not None:
            self._offer(reply, call, now)

    async def _admit_later(self, reply: Reply, frame: Frame, unread: reading.Unread, absent: Absent) -> None:
        call = await self._bring(reply, frame, unread, absent)
        if reply.dropped:
            return
        if call is not None:
            self._offer(reply, call, time.monotonic())
        self._sent(reply)
        self._dispatcher.wake()

    async def _bring(self, reply: Reply, frame: Frame, unread: reading.Unread, absent: Absent) -> Call | None:
        """The call, once what it needs is there; None if it is wrong or too late, which its reply has been told."""
        for _ in range(_BRINGINGS):
            error = await brought(absent)
            if reply.dropped:
                return None
            if error is not None:
                self._fail(reply, unread.ordinal, unread.call_id, error, None)
                return None
            try:
                return self._read(reply, frame, unread)
            except Absent as another:
                absent = another
        error = ResourceExhaustedError("weights are put out as fast as they come in: --max-weights-bytes is too small")
        self._fail(reply, unread.ordinal, unread.call_id, error, None)
        return None

    def _offer(self, reply: Reply, call: Call, now: float) -> None:
        reply.calls[call.ordinal] = call
        try:
            self._lanes.offer(call, call.key.max_rows, now)
        except Full as full:
            self._measures.rejected(full.reason)
            error = ResourceExhaustedError(
                f"{call.plan.operator.title}: the queue is full by --max-queue-{full.reason}",
                operator=call.plan.operator.title,
                retry_after_seconds=full.retry_after_seconds,
            )
            self._fail(reply, call.ordinal, call.call_id, error, call)

    async def _run_isolated(self) -> None:
        """Runs the calls of frames that a worker died with, one at a time, each announced to the gateway first."""
        self._dispatcher.pause(True)
        try:
            while self._isolated:
                reply, frame = self._isolated.popleft()
                if not reply.dropped:
                    await self._run_frame_isolated(reply, frame)
        finally:
            self._isolating = False
            self._dispatcher.pause(False)

    async def _run_frame_isolated(self, reply: Reply, frame: Frame) -> None:
        await self._announce(reply, None)
        unread = self._unread(reply, frame)
        for found, quarantined in unread or ():
            if reply.dropped:
                return
            if quarantined:
                self._refuse_quarantined(reply, found)
                continue
            await self._announce(reply, found.ordinal)
            try:
                call = self._read(reply, frame, found)
            except Absent as absent:
                call = await self._bring(reply, frame, found, absent)
            if call is not None and not reply.dropped:
                await self._dispatcher.run_alone(call)
        if not reply.dropped:
            self._sent(reply)

    async def _announce(self, reply: Reply, ordinal: int | None) -> None:
        """Returns when the announcement has left this process, which the call may be about to end."""
        reply.flush()
        reply.start(ordinal)
        while reply.link.unsent_bytes():  # the transport has no event for it
            await asyncio.sleep(0)

    # answers that are errors, and ends

    def _fail(self, reply: Reply, ordinal: int, call_id: int, error: LayerwireError, call: Call | None) -> None:
        self._measures.failed(call, error)
        if call is not None and not error.operator:
            error.operator = call.plan.operator.title
        reply.fail(ordinal, call_id, error)

    def _refuse_quarantined(self, reply: Reply, found: reading.Unread) -> None:
        self._measures.rejected("quarantined")
        self._fail(reply, found.ordinal, found.call_id, _quarantined(reply.frame, found.ordinal), None)

    def _sent(self, reply: Reply) -> None:
        """Sends what has been gathered; forgets the reply if that was all."""
        reply.flush()
        if not reply.unanswered:
            self._replies.pop((reply.link, reply.frame.frame), None)

    def _drop(self, reply: Reply) -> None:
        now = time.monotonic()
        reply.dropped = True
        del self._replies[reply.link, reply.frame.frame]
        calls, reply.calls = reply.calls, {}  # they know each other: only a collection would free their bytes
        for call in calls.values():
            if self._lanes.withdraw(call, now):
                self._measures.failed(call, CallCancelledError("cancelled by the client"))
                call.contents = []


def _quarantined(frame: Frame, ordinal: int) -> InternalError:
    error_id = secrets.token_hex(8)
    log.error("call is quarantined", extra={"fields": {"error_id": error_id, "request": frame.id, "ordinal": ordinal}})
    # A frame that isn't isolated saw no death: the gateway knows the call from before.
    again = "" if frame.flags & Flag.ISOLATE else " when it was sent before"
    return InternalError(f"workers died of this call twice{again}; error id {error_id}", error_id=error_id)
