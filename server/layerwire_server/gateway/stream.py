"""Streams: frames of calls go to workers as they come, answers go back in the order they come, several in one message.

It knows gRPC's contexts and the router; of the bytes only which of StreamRequest's two fields comes first.

A stream that holds too much is read no further, so a client that doesn't read its answers, or sends faster than the
workers run, is stopped by gRPC's flow control and not by errors.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from typing import Any

import grpc

from layerwire.errors import (
    InternalError,
    InvalidArgumentError,
    LayerwireError,
    ResourceExhaustedError,
    UnavailableError,
)
from layerwire_server.gateway.pending import Pending
from layerwire_server.gateway.refusal import code_of, refuse, status_of
from layerwire_server.gateway.rpc import Services
from layerwire_server.link import Kind, request_id

GROUPS_KEY = "layerwire-call-groups"  # in a stream's initial metadata: this server takes groups of calls
_CALLS_TAG, _CANCEL_TAG = 0x0A, 0x12  # StreamRequest's fields 1 and 2, both length-delimited
_MESSAGE_BYTES = 1024**2  # answers are put together up to here
_FRAME_BYTES = 1024  # what a frame costs beside its bytes
_STALL_SECONDS = 10.0  # well below the 30 s that the SDK gives a call: who waits for the room gets it in time
_MOST_CANCELLATION_BYTES = 65536  # 8,192 ids; a worker makes objects of them

Context = grpc.aio.ServicerContext[bytes, bytes]


class StreamPending(Pending):
    """A frame of a stream."""

    __slots__ = ("owner",)

    def __init__(self, owner: Stream, payload: bytes) -> None:
        super().__init__(Kind.CALLS, payload, time.monotonic(), math.inf, stream=owner.number)
        self.owner = owner

    def answer(self, payload: bytes, last: bool) -> None:
        """Router: answers to some of its calls."""
        self.owner.take(self, payload, last)

    def fail(self, error: LayerwireError | bytes) -> None:
        """Router: it can't be answered call by call, so the stream ends."""
        self.owner.fail(error)


class Streams:
    """The Stream RPC, and all its streams that are open. Subclasses are other RPCs that stream.

    Attributes:
        method: the RPC's name, for metrics.
        initial_metadata: what each stream begins with, before its client has sent anything.
    """

    method = "Stream"
    initial_metadata: tuple[tuple[str, str], ...] = ((GROUPS_KEY, "1"),)

    def __init__(self, services: Services, max_stream_bytes: int) -> None:
        self.services = services
        self.max_stream_bytes = max_stream_bytes
        self.open: set[Stream] = set()
        self.received_bytes = services.metrics.counter("layerwire_received_bytes_total", method=self.method)
        self.sent_bytes = services.metrics.counter("layerwire_sent_bytes_total", method=self.method)

    async def handle(self, _: object, context: Context) -> None:
        """gRPC: one stream, from its beginning to its end."""
        stream = self.begin(context)
        self.open.add(stream)
        code = "OK"
        try:
            await stream.serve()
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except grpc.aio.AbortError:
            code = stream.code
            raise
        finally:
            self.open.discard(stream)
            self.services.metrics.counter("layerwire_requests_total", method=self.method, code=code).add()
            self.services.log.debug("stream ended", request=request_id(stream.number), code=code)

    def begin(self, context: Context) -> Stream:
        """A new stream."""
        return Stream(self, context)

    def drain(self) -> None:
        """Reads no stream further; each ends when its calls are answered."""
        for stream in self.open:
            stream.drain()

    def end_stalled(self, now: float) -> None:
        """Ends streams whose clients read nothing, while the gateway can't take more for others."""
        if self.services.admission.full:
            for stream in self.open:
                if now - stream.writing_since > _STALL_SECONDS:
                    stream.give_up()


class Stream:
    """One stream: a task reads, the handler's own coroutine writes. Subclasses say what messages are.

    Attributes:
        number: unique among frames and streams.
        code: name of the status it ended with by an error.
        writing_since: when the message being written was begun; infinite while none is.
    """

    def __init__(self, streams: Streams, context: Context) -> None:
        self.number = streams.services.router.next_number()
        self.code = "UNKNOWN"
        self.writing_since = math.inf
        self._streams = streams
        self._context = context
        self._router = streams.services.router
        self._admission = streams.services.admission
        self._frames: dict[int, Pending] = {}
        self._replies: list[bytes] = []
        self._held_bytes = 0
        self._failure: LayerwireError | bytes | None = None
        self._reads = True
        self._drains = False
        self._reader: asyncio.Task[None] | None = None
        self._handler = asyncio.current_task()
        self._reader_wake: asyncio.Future[None] | None = None
        self._writer_wake: asyncio.Future[None] | None = None

    async def serve(self) -> None:
        """Reads and writes until both are done, or the stream fails."""
        self._reader = asyncio.create_task(self._read())
        try:
            if self._streams.initial_metadata:
                await self._context.send_initial_metadata(self._streams.initial_metadata)
            await self._write()
        finally:
            self._reader.cancel()
            for pending in self._frames.values():
                self._router.abandon(pending)
            self._admission.release(self._held_bytes, time.monotonic())
            # A broken stream's traceback and its task know each other, and would keep all this until the next full
            # collection: 600 MB in one trial.
            self._frames, self._replies, self._reader, self._handler = {}, [], None, None

    def take(self, pending: Pending, payload: bytes, last: bool) -> None:
        """Answers to a frame's calls came."""
        if last:
            del self._frames[pending.number]
            self._release(_FRAME_BYTES + len(pending.payload))
        if payload:
            self._hold(len(payload))
            self._replies.append(payload)
        _wake(self._writer_wake)

    def fail(self, error: LayerwireError | bytes) -> None:
        """The stream ends by this error, after the answers that are there."""
        if self._failure is None:
            self._failure = error
        _wake(self._writer_wake)

    def drain(self) -> None:
        """Takes no further frames; ends when all are answered."""
        self._drains = True
        if self._reader is not None:
            self._reader.cancel()
        _wake(self._writer_wake)

    def give_up(self) -> None:
        """Ends at once, though the client reads nothing."""
        self._admission.rejections["unread_answers"].add()
        self.fail(ResourceExhaustedError("answers were not read for too long, and the server needs the room"))
        if self._handler is not None:
            self._handler.cancel()

    def accept(self, message: bytes) -> None:
        """Takes a message in; the stream ends by a LayerwireError that this raises."""
        tag = message[0] if message else None
        if tag == _CALLS_TAG:
            self.enter(StreamPending(self, message))
        elif tag == _CANCEL_TAG:
            self._take_cancellation(message)
        else:
            raise InvalidArgumentError("stream: frame must be set to calls or cancel")

    def enter(self, pending: Pending) -> None:
        """Sends a frame to a worker."""
        self._hold(_FRAME_BYTES + len(pending.payload))
        self._router.submit(pending)
        self._frames[pending.number] = pending

    def messages(self, replies: list[bytes]) -> Iterator[bytes]:
        """The messages that replies are sent in."""
        return _together(replies)

    async def _read(self) -> None:
        try:
            while True:
                if self._held_bytes >= self._streams.max_stream_bytes or self._admission.full:
                    await self._room()
                message: Any = await self._context.read()
                if message is grpc.aio.EOF:
                    break
                self._streams.received_bytes.add(len(message))
                self._admission.check(len(message))
                self.accept(message)
            self._reads = False
            _wake(self._writer_wake)
        except LayerwireError as error:
            self.fail(error.with_traceback(None))  # which would keep the message
        except Exception:
            identity = request_id(self.number)
            self._streams.services.log.exception("stream can't be read", request=identity)
            self.fail(InternalError(f"internal error {identity}", error_id=identity))

    def _take_cancellation(self, message: bytes) -> None:
        if len(message) > _MOST_CANCELLATION_BYTES:
            self._admission.rejections["cancellations"].add()
            raise InvalidArgumentError(
                f"stream: cancel must be at most {_MOST_CANCELLATION_BYTES} bytes a message, got {len(message)}",
                field="cancel",
            )
        self._router.cancel_calls(self._frames.values(), self.number, message)

    async def _write(self) -> None:
        while True:
            if self._replies:
                await self._write_replies()
            elif self._failure is not None:
                await self._end(self._failure)
            elif self._frames or (self._reads and not self._drains):
                self._writer_wake = asyncio.get_running_loop().create_future()
                await self._writer_wake
            elif self._drains:
                await self._end(UnavailableError("the server is stopping"))
            else:
                return

    async def _write_replies(self) -> None:
        replies, self._replies = self._replies, []
        message = b""
        try:
            for message in self.messages(replies):
                self.writing_since = time.monotonic()
                await self._context.write(message)
                self.writing_since = math.inf
                self._streams.sent_bytes.add(len(message))
                self._release(len(message))
        finally:
            replies.clear()
            del message

    async def _end(self, error: LayerwireError | bytes) -> None:
        status = status_of(error)
        self.code = code_of(status).name
        await refuse(self._context, status, self.number)

    async def _room(self) -> None:
        while self._held_bytes >= self._streams.max_stream_bytes:
            self._reader_wake = asyncio.get_running_loop().create_future()
            await self._reader_wake
        await self._admission.room()

    def _hold(self, nbytes: int) -> None:
        self._held_bytes += nbytes
        self._admission.hold(nbytes)

    def _release(self, nbytes: int) -> None:
        self._held_bytes -= nbytes
        self._admission.release(nbytes, time.monotonic())
        if self._reader_wake is not None and self._held_bytes < self._streams.max_stream_bytes:
            _wake(self._reader_wake)


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)


def _together(replies: list[bytes]) -> Iterator[bytes]:
    """The replies in order, joined to messages: StreamResponses that follow each other are a StreamResponse."""
    start, nbytes = 0, 0
    for index, reply in enumerate(replies):
        if nbytes and nbytes + len(reply) > _MESSAGE_BYTES:
            yield b"".join(replies[start:index])
            start, nbytes = index, 0
        nbytes += len(reply)
    yield replies[start] if start == len(replies) - 1 else b"".join(replies[start:])
