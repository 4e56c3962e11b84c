"""Sends calls to one address in frames on a stream, hands answers up, and opens the stream again when it breaks.

It knows gRPC's streams and frames of calls; neither callers nor other addresses, of which its owner takes care.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from layerwire.errors import InternalError, LayerwireError, UnavailableError, make
from layerwire.transport import health, reasons, retry
from layerwire.transport.call import Call, call_groups, single_calls
from layerwire.transport.client_memory import LARGE_BYTES, ClientMemory, Loan
from layerwire.transport.frame_interval import FrameInterval
from layerwire.transport.settings import Settings
from layerwire.v1 import layerwire_pb2 as messages
from layerwire.wire import framing, message_parts
from layerwire.wire.arrays import aligned_end
from layerwire.wire.protobuf import MalformedError
from layerwire.wire.shared_memory import SharedMemoryError

_STREAM = "/layerwire.v1.LayerwireService/Stream"
# A frame is a batch that arrives at once, but the first call in it waits for the last to be there: a bounded one.
MAX_FRAME_CALLS = 512
# So few go together: a frame costs as much as they do. Groups would let 64 go for less than a frame, and that saves a
# quarter of the CPU; but half of 32 callers' calls beside the other half are 1.2 times the rate (measured).
WHOLE_FRAME_CALLS = 16
MAX_FRAME_BYTES = 1 << 20
FRAME_OVERHEAD_BYTES = 32  # of a call's frame beyond the call: tags and lengths of Calls and of a group, with room
GROUPS_KEY = "layerwire-call-groups"  # metadata of a stream whose server takes groups
MEMORY_KEY = "layerwire-shared-memory"  # likewise: whose server may be asked for memory to share
_MAX_CANCELLATIONS = 4096
_MEMORY_SECONDS = 5.0
_REFUSAL_SECONDS = 0.5
_UNASKED, _WANTED, _ASKED = range(3)  # whether a stream's server is to be asked for memory, or for messages in parts


class Owner(Protocol):
    """Who distributes calls over connections."""

    def on_available(self, connection: Connection) -> None:
        """Calls may be given to the connection."""

    def on_response(self, connection: Connection, frame: bytes | memoryview) -> None:
        """A StreamResponse came.

        Raises:
            DecodeError: it is none.
        """

    def on_memory(self, connection: Connection, memory: ClientMemory | None) -> None:
        """The server shares this memory with the client from now on."""

    def on_loss(self, connection: Connection, calls: Sequence[Call], error: LayerwireError, *, resend: bool) -> None:
        """The stream ended and with it these calls, which may be sent again or not."""


class Connection:
    """The stream to one address.

    Attributes:
        available: whether calls may be given to it now.
        failures: streams that failed in a row, without an answer between them.
        sent_calls: calls on the stream, by id.
        takes_groups: whether the stream's server is known to take groups of calls.
        memory: what the stream's server shares with this client.
        loans: what unanswered calls have of it, by id, also of those that were given up.
        frame_interval: how long frames of few calls wait for company.
    """

    def __init__(self, settings: Settings, address: str, owner: Owner, *, watches_health: bool) -> None:
        self.address = address
        self.channel = settings.channel(address)
        self.available = not watches_health
        self.failures = 0
        self.sent_calls: dict[int, Call] = {}
        self.takes_groups = False
        self._takes_parts = False
        self._parts_state = _UNASKED
        self.memory: ClientMemory | None = None
        self.loans: dict[int, Loan] = {}
        self.frame_interval = FrameInterval()
        self._may_share = settings.shares_memory(address)
        self._server_shares = False
        self._memory_state = _UNASKED
        self._memory_waiters: list[asyncio.Future[None]] = []
        self._queue: deque[Call] = deque()
        self._cancelled_ids: list[int] = []
        self._metadata = settings.metadata
        self._max_message_bytes = settings.max_message_bytes
        self._tls = settings.credentials is not None
        self._owner = owner
        self._chance = random.Random()  # noqa: S311  # jitter keeps no secret
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.Future[None] | None = None
        self._is_serving = not watches_health
        self._is_backing_off = False
        self._is_wary = False
        self._tasks = [self._loop.create_task(self._run())]
        if watches_health:
            self._tasks.append(self._loop.create_task(self._watch()))

    def give(self, call: Call) -> None:
        """Sends a call with the next frame."""
        call.connection = self
        self._queue.append(call)
        if self._wake is not None:
            self._rouse()

    def give_up(self, call: Call) -> None:
        """Cancels a call at the server, if it was sent at all."""
        if self.sent_calls.pop(call.id, None) is not None:
            self._cancelled_ids.append(call.id)
            self._rouse()

    def on_memory(self, name: bytes) -> None:
        """The server says what memory it shares."""
        self._memory_state = _ASKED
        if name:
            with contextlib.suppress(SharedMemoryError):  # then calls go on without
                self.memory = ClientMemory(name)
                self._owner.on_memory(self, self.memory)
        self._end_wait_for_memory()

    async def shared_memory(self) -> ClientMemory | None:
        """What the server shares, once that is known; None also if it can't be learned soon."""
        if self._may_share and self.memory is None and self._memory_state != _ASKED:
            waiter = self._loop.create_future()
            self._memory_waiters.append(waiter)
            self._memory_state = _WANTED
            self._rouse()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiter, _MEMORY_SECONDS)
        return self.memory

    def end_sharing(self) -> None:
        """The server can't read the memory: calls of this stream go on without it; those on their way keep theirs."""
        self._memory_state = _ASKED
        if self.memory is not None:
            self.memory = None
            self._owner.on_memory(self, None)

    def end_loans(self, group: framing.Group) -> Sequence[memoryview]:
        """The data of a group that came, of which some may lie in shared memory; its calls have no more of that."""
        loans = [self.loans.pop(call_id, None) for call_id in group.ids]
        if not group.ranges:
            return group.data
        try:
            return [] if loans[0] is None else loans[0].answer(group.ranges)
        except ValueError:
            return []  # which is no answer to any call

    def _large_room(self, nbytes: int) -> memoryview:
        if nbytes > self._max_message_bytes:
            raise MalformedError
        return aligned_end(nbytes)

    def _end_wait_for_memory(self) -> None:
        waiters, self._memory_waiters = self._memory_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def take_back(self) -> list[Call]:
        """All its calls, sent or not, which are another's from now on; the stream must end or be over."""
        calls = [*self.sent_calls.values(), *self._take_queue()]
        self.sent_calls.clear()
        self._cancelled_ids.clear()
        return calls

    async def close(self) -> None:
        """Ends the stream and the channel."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self.channel.close()

    def _take_queue(self) -> list[Call]:
        calls = [call for call in self._queue if not call.is_finished]
        self._queue.clear()
        return calls

    def _rouse(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def _sleep(self) -> None:
        self._wake = self._loop.create_future()
        await self._wake

    async def _run(self) -> None:
        while True:
            while not self._queue and self._memory_state != _WANTED:
                await self._sleep()
            code, details = await self._stream()
            calls = self.take_back()
            was_wary, self._is_wary = self._is_wary, retry.CORE_ERROR in details
            if self._is_wary and not was_wary:  # why the server ended it is hidden: the next stream shows that
                for call in calls:
                    call.renew(time.monotonic())
                self._queue.extend(calls)
                continue
            resend = retry.may_resend(code, details)
            if calls or not resend:
                self.failures += 1
                self._is_backing_off = resend
                self._settle()
                self._owner.on_loss(self, calls, self._error(code, details), resend=resend)
            if self._is_backing_off:
                await asyncio.sleep(retry.backoff_seconds(self.failures, self._chance))
                self._is_backing_off = False
                self._settle()

    async def _stream(self) -> tuple[grpc.StatusCode, str]:
        """One stream from beginning to end, and how it ended."""
        method: Any = self.channel.stream_stream(_STREAM)  # of bytes, for which its type has no words
        stream = method(metadata=self._metadata)
        self.takes_groups = self._server_shares = self._takes_parts = False
        self._parts_state = _UNASKED
        large_answer = message_parts.Assembly(self._large_room)
        writer = self._loop.create_task(self._write(stream))
        try:
            keys = {key for key, _ in await stream.initial_metadata()}
            self.takes_groups, self._server_shares = GROUPS_KEY in keys, MEMORY_KEY in keys
            self._takes_parts = message_parts.KEY in keys
            if not self._server_shares:
                self.on_memory(b"")
            elif self._memory_state == _WANTED:
                self._rouse()
            while (frame := await stream.read()) is not grpc.aio.EOF:
                answer = large_answer.add(frame) if frame[:1] == message_parts.FIRST_BYTE else frame
                if answer is not None:
                    self._owner.on_response(self, answer)
                    self.failures = 0
                    if len(frame) > message_parts.LARGE_BYTES and self._parts_state == _UNASKED and self._takes_parts:
                        self._parts_state = _WANTED
                        self._rouse()
                del answer  # an array's memory, perhaps
        except (DecodeError, MalformedError):
            return grpc.StatusCode.DATA_LOSS, "the server sent a message that is no StreamResponse"
        except asyncio.CancelledError:  # also how grpc.aio tells that the server ended the stream with CANCELLED
            if _is_cancelled():
                raise
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the status says more
        except Exception as error:  # not foreseen; without this its calls would wait in silence
            return grpc.StatusCode.INTERNAL, f"the client failed: {error!r}"
        finally:
            writer.cancel()
            if self.memory is not None:
                self.memory = None
                self._owner.on_memory(self, None)
            self._memory_state = _UNASKED
            self.loans.clear()
            self._end_wait_for_memory()
            if not stream.done():
                stream.cancel()
        return await stream.code(), await stream.details() or ""

    async def _write(self, stream: Any) -> None:
        try:
            if self._is_wary:  # a write would hide what the server may have to say again, such as that a token is wrong
                await asyncio.wait([self._loop.create_task(stream.code())], timeout=_REFUSAL_SECONDS)
            while True:
                if 0 < len(self._queue) < WHOLE_FRAME_CALLS and self.frame_interval.is_long:
                    deadline = min(call.deadline for call in self._queue)
                    await asyncio.sleep(self.frame_interval.wait_seconds(deadline, time.monotonic()))
                frame = self._next_frame()
                if frame is None:
                    await self._sleep()
                elif isinstance(frame, bytes):
                    await stream.write(frame)
                else:
                    for part in frame:
                        await stream.write(part)
                    self._parts_state = _ASKED  # who sends parts takes them
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # the stream is over; its reader learns the status

    def _next_frame(self) -> bytes | Iterator[bytes] | None:
        """The next message, or the parts of it; None if there is nothing to send."""
        if self._cancelled_ids:
            ids = self._cancelled_ids[:_MAX_CANCELLATIONS]
            del self._cancelled_ids[:_MAX_CANCELLATIONS]
            return messages.StreamRequest(cancel=messages.Cancellation(ids=ids)).SerializeToString()
        if self._memory_state == _WANTED and self._server_shares:
            self._memory_state = _ASKED
            return messages.StreamRequest(share_memory=messages.ShareMemoryRequest()).SerializeToString()
        if self._parts_state == _WANTED:
            self._parts_state = _ASKED
            return message_parts.EMPTY
        calls = self._next_calls()
        if len(calls) == 1 and calls[0].nbytes >= LARGE_BYTES and self._may_share:
            frame = self._shared_frame(calls[0])
            if frame is not None:
                return frame
        if not calls:
            return None
        pieces, nbytes = call_groups(calls) if self.takes_groups else single_calls(calls)
        if self._takes_parts and nbytes > message_parts.LARGE_BYTES:
            return message_parts.parts(pieces, nbytes)
        return b"".join(pieces)

    def _shared_frame(self, call: Call) -> bytes | None:
        """The message of a call whose data lie in shared memory; None if they don't."""
        if self.memory is None:
            if self._memory_state == _UNASKED:
                self._memory_state = _WANTED  # for calls to come
            return None
        entry = call.entry
        loan = self.memory.loan([call.data[place] for place, _ in entry.columns], call.template.answer_sizes)
        if loan is None:
            return None
        self.loans[call.id] = loan
        return framing.shared_call(entry.template, call.id, loan.shared)

    def _next_calls(self) -> list[Call]:
        """The calls of the next frame, which are sent from now on."""
        calls: list[Call] = []
        queue, sent_calls = self._queue, self.sent_calls
        nbytes = 0
        # At most half of what is unanswered goes at once: callers that wait for their answers would else move in step,
        # and client, gateway and worker take turns at idling (measured: 1.7 times the rate with it at 256 callers).
        most = min(max((len(sent_calls) + len(queue) + 1) // 2, WHOLE_FRAME_CALLS), MAX_FRAME_CALLS)
        while queue and len(calls) < most:
            call = queue[0]
            if calls and nbytes + call.nbytes > MAX_FRAME_BYTES:
                break
            queue.popleft()
            if not call.is_finished:
                sent_calls[call.id] = call
                calls.append(call)
                nbytes += call.nbytes
        if calls:
            self.frame_interval.observe_frame(calls[0].id, time.monotonic())
        return calls

    async def _watch(self) -> None:
        failures = 0
        while True:
            try:
                async for is_serving in health.watch(self.channel, self._metadata):
                    failures = 0
                    self._is_serving = is_serving
                    self._settle()
                if self._is_serving:
                    return  # no health service there: the stream alone tells
            except grpc.aio.AioRpcError as error:
                code, details = error.code(), error.details() or ""
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                code, details = grpc.StatusCode.CANCELLED, "the server is stopping"
            else:
                code, details = grpc.StatusCode.UNAVAILABLE, "the server stopped telling of its health"
            failures += 1
            self._is_serving = False
            self._settle()
            if not self.sent_calls:
                self.failures += 1
                self._owner.on_loss(self, [], self._error(code, details), resend=True)
            await asyncio.sleep(retry.backoff_seconds(failures, self._chance))

    def _settle(self) -> None:
        """Tells the owner when the connection becomes available, and hands back what waits when it ceases to be."""
        before, self.available = self.available, self._is_serving and not self._is_backing_off
        if self.available and not before:
            self._owner.on_available(self)
        elif before and not self.available:
            calls = self._take_queue()
            if calls:
                self._owner.on_loss(self, calls, UnavailableError(f"{self.address} isn't serving"), resend=True)

    def _error(self, code: grpc.StatusCode, details: str) -> LayerwireError:
        if code == grpc.StatusCode.DATA_LOSS:
            return InternalError(f"{self.address}: {details}")
        if code == grpc.StatusCode.OK:
            return UnavailableError(f"{self.address}: the server ended the stream")
        error = make(code, f"{self.address}: {reasons.explain(details, tls=self._tls)}")
        return UnavailableError(error.message) if retry.may_resend(code, details) else error


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
