"""The worker's loop: takes frames from gateways and lets their calls wait in lanes, or answers what is wrong.

It knows where each frame goes: decoder, lanes, dispatcher, reply, other_requests; nothing of messages or devices.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from layerwire.errors import CallCancelledError, InternalError, LayerwireError, ResourceExhaustedError
from layerwire.v1 import layerwire_pb2
from layerwire_server.link import Flag, Frame, Kind, Link
from layerwire_server.worker.answering.reply import Answerable, Reply
from layerwire_server.worker.call import CallGroup, id_numbers
from layerwire_server.worker.dispatcher import Dispatcher, deadline_error
from layerwire_server.worker.lanes.lane import Batch, Full
from layerwire_server.worker.lanes.lanes import Lanes
from layerwire_server.worker.measures import Measures
from layerwire_server.worker.other_requests.handler import OtherRequests
from layerwire_server.worker.other_requests.models import Models
from layerwire_server.worker.reading.decoder import CallDecoder, Failure
from layerwire_server.worker.reading.requests import Request, parse
from layerwire_server.worker.running.device import Device
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import CacheMiss, load_error

log = logging.getLogger(__name__)

_REFUSALS = {"seconds": "what waits already takes too long for the call's deadline"}  # else a limit is named
_TURN_SECONDS = 0.005  # for so long one frame's calls are read and planned; a plan may take 4 ms
_MAX_LOADS = 8  # program, weights, sizes: each is missed once, and again only if room is very short


class WorkerLoop:
    """A worker: link.Receiver for all its gateways, owner of its lanes and device."""

    def __init__(
        self,
        index: int,
        device: Device,
        lanes: Lanes[CallGroup],
        decoder: CallDecoder,
        catalog: Catalog,
        measures: Measures,
        *,
        hello: bytes,
        hang_seconds: float,
        on_batch: Callable[[Batch[CallGroup]], None],
        max_answer_bytes: int,
    ) -> None:
        self._lanes = lanes
        self._decoder = decoder
        self._measures = measures
        self._hello = hello
        self._max_answer_bytes = max_answer_bytes
        self._dispatcher = Dispatcher(index, device, lanes, measures, self._flush, on_batch, hang_seconds)
        models = Models(catalog, measures.model_statistics, lanes.limits)
        self._other_requests = OtherRequests(device, decoder, catalog, models, self._dispatcher, max_answer_bytes)
        self._replies: dict[tuple[Link, int], Reply] = {}
        self._unread: dict[Reply, set[int]] = {}  # frames that are being admitted, and ids cancelled meanwhile
        self._isolated_frames: deque[tuple[Reply, Frame]] = deque()
        self._is_isolating = False
        self._handlers: dict[Kind, Callable[[Link, Frame], None]] = {
            Kind.CALLS: self._on_calls,
            Kind.UNARY: self._on_unary,
            Kind.CANCEL_FRAME: self._on_cancel_frame,
            Kind.CANCEL_CALLS: self._on_cancel_calls,
            **self._other_requests.handlers,
        }

    # what gateways send

    def on_connect(self, link: Link) -> None:
        """link.Receiver: a gateway is there."""
        link.send(Frame(Kind.HELLO, payload=self._hello))
        link.offer_memory()

    def on_frame(self, link: Link, frame: Frame) -> None:
        """link.Receiver: a gateway sent a frame."""
        handle = self._handlers.get(frame.kind)
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
        while self._replies or not self._other_requests.idle:  # once in a life
            await asyncio.sleep(0.01)

    @property
    def calls_in_flight(self) -> int:
        """Calls accepted and not answered, whether they wait or run."""
        return sum(reply.unanswered_count for reply in self._replies.values())

    async def watch(self) -> None:
        """Ends the process if the device hangs."""
        await self._dispatcher.watch()

    async def keep_store_swept(self) -> None:
        """Deletes now and then what nothing in the store points to any more; for one worker of all."""
        await self._other_requests.keep_swept()

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Runs a piece of work where batches run, between them; from any thread."""
        return self._dispatcher.submit(work)

    def close(self) -> None:
        """Ends the device's threads, once idle."""
        self._dispatcher.close()

    def _on_calls(self, link: Link, frame: Frame) -> None:
        reply = Reply(link, frame, 0, self._max_answer_bytes)
        self._replies[link, frame.frame] = reply
        if frame.flags is not Flag.NONE and frame.flags & Flag.ISOLATE:
            self._isolated_frames.append((reply, frame))
            if not self._is_isolating:
                self._is_isolating = True
                self._other_requests.start(self._run_isolated())
            return
        requests = self._requests(reply, frame)
        if not requests:
            return
        self._admit_some(reply, frame, iter(requests))

    def _admit_some(self, reply: Reply, frame: Frame, requests: Iterator[tuple[Request, bool]]) -> None:
        """Admits what a frame asks for; in several turns of the loop where that takes long, as for new shapes."""
        now = time.monotonic()
        cancelled_ids = self._unread.pop(reply, None) if self._unread else None
        if reply.is_dropped:
            return
        owed_count = reply.unanswered_count
        for request, is_quarantined in requests:
            if is_quarantined:
                self._refuse_quarantined(reply, request)
            else:
                self._admit(reply, frame, request, now)
            if time.monotonic() - now > _TURN_SECONDS:
                self._unread[reply] = cancelled_ids or set()
                asyncio.get_running_loop().call_soon(self._admit_some, reply, frame, requests)
                break
        if cancelled_ids:
            self._cancel_all(reply, cancelled_ids, now)
        if reply.unanswered_count < owed_count:
            self._flush(reply)
        self._dispatcher.wake()

    def _on_unary(self, link: Link, frame: Frame) -> None:
        self._other_requests.unary_handlers.get(frame.family, self._on_calls)(link, frame)

    def _on_cancel_frame(self, link: Link, frame: Frame) -> None:
        reply = self._replies.get((link, frame.frame))
        if reply is not None:
            self._drop(reply)

    def _on_cancel_calls(self, link: Link, frame: Frame) -> None:
        try:
            ids = set(parse(layerwire_pb2.StreamRequest(), frame.payload).cancel.ids)
        except LayerwireError:
            return  # the gateway let it through by its first byte; it cancels nothing
        now = time.monotonic()
        for reply in [r for r in self._replies.values() if r.link is link and r.stream == frame.stream]:
            if reply in self._unread:
                self._unread[reply] |= ids
            self._cancel_all(reply, ids, now)
            self._flush(reply)

    def _cancel_all(self, reply: Reply, ids: set[int], now: float) -> None:
        for call in [call for call in reply.groups if not call.is_gone]:
            self._cancel(reply, call, ids, now)

    def _cancel(self, reply: Reply, call: CallGroup, ids: set[int], now: float) -> None:
        """Takes the calls with these ids out of their group; the others wait on in its place."""
        runs = [
            (is_cancelled, [index for index, _ in run])
            for is_cancelled, run in itertools.groupby(enumerate(id_numbers(call.ids)), lambda each: each[1] in ids)
        ]
        if not any(is_cancelled for is_cancelled, _ in runs):
            return
        parts = [(is_cancelled, call.part(run[0], run[-1] + 1)) for is_cancelled, run in runs]
        pieces = [part for is_cancelled, part in parts if not is_cancelled]
        self._lanes.replace(call, pieces, now)
        reply.forget(call)
        reply.groups.update(pieces)
        for is_cancelled, part in parts:
            if is_cancelled:
                self._fail(reply, part, CallCancelledError("cancelled by the client"), part)

    # from frames to lanes

    def _requests(self, reply: Reply, frame: Frame) -> list[tuple[Request, bool]]:
        """The requests of a frame that are owed an answer; if there are none, that has been answered."""
        try:
            requests = self._decoder.requests(frame)
        except LayerwireError as error:
            self._measures.count_failure(None, error)
            reply.refuse(error)
            del self._replies[reply.link, reply.number]
            return []
        for request, _ in requests:
            reply.unanswered_count += request.count
        if not requests:
            reply.send_message(b"")
            del self._replies[reply.link, reply.number]
        return requests

    def _calls(self, reply: Reply, frame: Frame, request: Request) -> list[CallGroup]:
        """The calls, ready to wait or run, without those that are wrong or too late, which has been answered.

        Raises:
            CacheMiss: what they need has to be loaded first.
        """
        calls = []
        for call in self._decoder.calls(request, frame):
            if isinstance(call, Failure):
                self._fail(reply, call.request, call.error, None)
                continue
            call.reply = reply
            call.caller = reply.link, frame.stream
            if call.deadline != math.inf and call.deadline <= time.monotonic():
                self._fail(reply, call, deadline_error(call), call)
                continue
            calls.append(call)
        return calls

    def _admit(self, reply: Reply, frame: Frame, request: Request, now: float) -> None:
        try:
            calls = self._calls(reply, frame, request)
        except CacheMiss as miss:
            self._other_requests.start(self._admit_later(reply, frame, request, miss))
            return
        for call in calls:
            self._offer(reply, call, now)

    async def _admit_later(self, reply: Reply, frame: Frame, request: Request, miss: CacheMiss) -> None:
        calls = await self._calls_after_loads(reply, frame, request, miss)
        if reply.is_dropped:
            return
        for call in calls:
            self._offer(reply, call, time.monotonic())
        self._flush(reply)
        self._dispatcher.wake()

    async def _calls_after_loads(
        self, reply: Reply, frame: Frame, request: Request, miss: CacheMiss
    ) -> list[CallGroup]:
        """The same, once what they need is in memory."""
        for _ in range(_MAX_LOADS):
            error = await load_error(miss)
            if reply.is_dropped:
                return []
            if error is not None:
                self._fail(reply, request, error, None)
                return []
            try:
                return self._calls(reply, frame, request)
            except CacheMiss as another:
                miss = another
        error = ResourceExhaustedError("weights are put out as fast as they come in: --max-weights-bytes is too small")
        self._fail(reply, request, error, None)
        return []

    def _offer(self, reply: Reply, call: CallGroup, now: float) -> None:
        reply.groups.add(call)
        try:
            self._lanes.offer(call, call.key.max_rows, now)
        except Full as full:
            rest: CallGroup = full.rest
            self._measures.count_rejection(full.reason, rest.count)
            title = call.plan.operator.title
            error = ResourceExhaustedError(
                f"{title}: {_REFUSALS.get(full.reason, f'the queue is full by --max-queue-{full.reason}')}",
                operator=title,
                retry_after_seconds=full.retry_after_seconds,
            )
            self._fail(reply, rest, error, rest)

    async def _run_isolated(self) -> None:
        """Runs the calls of frames that a worker died with, one at a time, each announced to the gateway first."""
        self._dispatcher.pause()
        try:
            while self._isolated_frames:
                reply, frame = self._isolated_frames.popleft()
                if not reply.is_dropped:
                    await self._run_frame_isolated(reply, frame)
        finally:
            self._is_isolating = False
            self._dispatcher.resume()

    async def _run_frame_isolated(self, reply: Reply, frame: Frame) -> None:
        await self._announce(reply, None)
        for request, is_quarantined in self._requests(reply, frame):
            if reply.is_dropped:
                return
            if is_quarantined:
                self._refuse_quarantined(reply, request)
                continue
            for single in request.singles():
                await self._run_single(reply, frame, single)
        if not reply.is_dropped:
            self._flush(reply)

    async def _run_single(self, reply: Reply, frame: Frame, request: Request) -> None:
        if reply.is_dropped:
            return
        await self._announce(reply, request.ordinal)
        try:
            calls = self._calls(reply, frame, request)
        except CacheMiss as miss:
            calls = await self._calls_after_loads(reply, frame, request, miss)
        for call in calls:
            if not reply.is_dropped:
                await self._dispatcher.run_alone(call)

    async def _announce(self, reply: Reply, ordinal: int | None) -> None:
        """Returns when the announcement has left this process, which the call may be about to end."""
        reply.flush()
        reply.announce(ordinal)
        while reply.link.unsent_bytes():  # the transport has no event for it
            await asyncio.sleep(0)

    # answers that are errors, and ends

    def _fail(self, reply: Reply, calls: Answerable, error: LayerwireError, call: CallGroup | None) -> None:
        self._measures.count_failure(call, error, calls.count)
        if call is not None and not error.operator:
            error.operator = call.plan.operator.title
        reply.fail(calls, error)

    def _refuse_quarantined(self, reply: Reply, request: Request) -> None:
        for single in request.singles():  # each error has an id of its own
            self._measures.count_rejection("quarantined")
            self._fail(reply, single, _quarantine_error(reply, single.ordinal), None)

    def _flush(self, reply: Reply) -> None:
        """Sends what has been gathered; forgets the reply if that was all."""
        reply.flush()
        if not reply.unanswered_count:
            self._replies.pop((reply.link, reply.number), None)

    def _drop(self, reply: Reply) -> None:
        now = time.monotonic()
        reply.is_dropped = True
        del self._replies[reply.link, reply.number]
        calls, reply.groups = reply.groups, set()  # they know each other: only a collection would free their bytes
        for call in calls:
            if self._lanes.withdraw(call, now):
                self._measures.count_failure(call, CallCancelledError("cancelled by the client"), call.count)
                call.contents = []


def _quarantine_error(reply: Reply, ordinal: int) -> InternalError:
    error_id = secrets.token_hex(8)
    log.error(
        "call is quarantined", extra={"fields": {"error_id": error_id, "request": reply.request_id, "ordinal": ordinal}}
    )
    # A frame that isn't isolated saw no death: the gateway knows the call from before.
    again = "" if reply.flags & Flag.ISOLATE else " when it was sent before"
    return InternalError(f"workers died of this call twice{again}; error id {error_id}", error_id=error_id)
