"""Streams: frames of calls go to workers as they come, answers go back in the order they come, several in one message.

It knows gRPC's contexts and the router; of the bytes only which of StreamRequest's two fields comes first.

While many answers wait for their client to read them, workers get no more of its frames.
A stream that holds too much is read no further, so a client that doesn't read its answers, or sends faster than the
workers run, is stopped by gRPC's flow control and not by errors.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import grpc

from layerwire.errors import InternalError, InvalidArgumentError, LayerwireError, UnauthenticatedError, UnavailableError
from layerwire.wire import message_parts
from layerwire.wire.shared_memory import Memory
from layerwire_server.gateway import client_memory
from layerwire_server.gateway.access import Caller
from layerwire_server.gateway.client_memory import MemoryBudget
from layerwire_server.gateway.message_bytes import message_counters
from layerwire_server.gateway.pending import Pending
from layerwire_server.gateway.refusal import code_of, refuse, status_of
from layerwire_server.gateway.rpc import Context, Services
from layerwire_server.gateway.stream_messages import LargeRequest, in_parts, together
from layerwire_server.link import Kind, request_id

GROUPS_KEY = "layerwire-call-groups"  # in a stream's initial metadata: this server takes groups of calls
MEMORY_KEY = "layerwire-shared-memory"  # likewise: it may be asked for memory to share
_CALLS_TAG, _CANCEL_TAG, _MEMORY_TAG = 0x0A, 0x12, 0x22  # StreamRequest's fields 1, 2 and 4, all length-delimited
_SMALL_BYTES = 4096  # a message that gRPC may still have when it counts as read
_UNREAD_BYTES = 32 * 1024**2  # of answers: beyond, more of them would only grow old
_FRAME_BYTES = 1024  # what a frame costs beside its bytes
_STALL_SECONDS = 10.0  # well below the 30 s that the SDK gives a call: who waits for the room gets it in time
_MOST_CANCELLATION_BYTES = 65536  # 8,192 ids; a worker makes objects of them


class StreamPending(Pending):
    """A frame of a stream."""

    __slots__ = ("owner",)

    def __init__(self, owner: Stream, payload: bytes | memoryview, link: object = None) -> None:
        super().__init__(Kind.CALLS, payload, time.monotonic(), math.inf, stream=owner.number)
        self.owner = owner
        self.link = link

    def takes_view(self, nbytes: int) -> bool:
        """See Pending."""
        return self.owner.sends_parts and nbytes > message_parts.LARGE_BYTES

    def answer(self, payload: bytes | memoryview, last: bool) -> None:
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
    initial_metadata: tuple[tuple[str, str], ...] = ((GROUPS_KEY, "1"), (MEMORY_KEY, "1"), (message_parts.KEY, "1"))

    def __init__(
        self, services: Services, max_stream_bytes: int, max_shared_bytes: int = 0, max_message_bytes: int = 0
    ) -> None:
        self.services = services
        self.max_stream_bytes = max_stream_bytes
        self.open: set[Stream] = set()
        self.memories = MemoryBudget(max_shared_bytes, max_message_bytes)
        self.received_bytes, self.sent_bytes = message_counters(services.metrics, self.method)
        self.count_request_copies = services.metrics.counter("layerwire_copied_bytes_total", place="to_worker").add
        self.count_answer_copies = services.metrics.counter("layerwire_copied_bytes_total", place="to_message").add

    def begin(self, _: object, context: Context) -> None:
        """Server: one stream."""
        stream = self.new(context)
        self.open.add(stream)
        if self.initial_metadata:
            context.send_initial_metadata(self.initial_metadata)
        stream.start()

    def new(self, context: Context) -> Stream:
        """A new stream."""
        return Stream(self, context)

    def over(self, stream: Stream, code: str) -> None:
        """A stream has ended."""
        self.open.discard(stream)
        self.services.metrics.counter("layerwire_requests_total", method=self.method, code=code).add()
        self.services.log.debug("stream ended", request=request_id(stream.number), code=code)

    def drain(self) -> None:
        """Reads no stream further; each ends when its calls are answered."""
        for stream in list(self.open):
            stream.drain()

    def end_unwelcome(self, is_welcome: Callable[[Caller], bool]) -> None:
        """Ends the streams of callers that may not go on."""
        for stream in list(self.open):
            if not is_welcome(stream.caller):
                stream.fail(UnauthenticatedError("the token isn't valid any more"))

    def end_stalled(self, now: float) -> None:
        """Ends streams whose clients read nothing, while the gateway can't take more for others."""
        if self.services.admission.full:
            for stream in list(self.open):
                if now - stream.writing_since > _STALL_SECONDS:
                    stream.give_up()


class Stream:
    """One stream: callbacks read and write, on the loop's thread. Subclasses say what messages are.

    Attributes:
        number: unique among frames and streams.
        sends_parts: whether the client takes large messages in parts.
    """

    def __init__(self, streams: Streams, context: Context) -> None:
        self.number = streams.services.router.next_number()
        self._streams = streams
        self._context = context
        self._router = streams.services.router
        self._admission = streams.services.admission
        self._frames: dict[int, Pending] = {}  # that workers have
        self._waiting_frames: deque[Pending] = deque()
        self._unread_bytes = 0
        self.sends_parts = False
        self._large_request = LargeRequest(self._admission.check, self._router.room)
        self._between_bytes = 0  # of whole messages since the large one was begun
        self._replies: list[bytes | memoryview] = []
        self._messages: Iterator[bytes] = iter(())  # that replies are being written in
        self._message: bytes | None = None  # the next of them
        self._held_bytes = 0
        self._memory: Memory | None = None
        self._failure: LayerwireError | bytes | None = None
        self._reads = True
        self._drains = False
        self._waits_for_room = False
        self._will_write = False
        self._is_writing = False  # a message that `_after_write` will be called for
        self._write_time = 0.0
        self._is_over = False

    @property
    def caller(self) -> Caller:
        """Whose it is."""
        return self._context.caller

    @property
    def writing_since(self) -> float:
        """When the message being written was begun; infinite while none is."""
        return self._write_time if self._context.is_sending else math.inf

    def start(self) -> None:
        """Reads and writes from now on, until both are done, or the stream fails."""
        self._context.on_cancel = self._leave
        self._read_on()

    def take(self, pending: Pending, payload: bytes | memoryview, last: bool) -> None:
        """Answers to a frame's calls came."""
        if last:
            del self._frames[pending.number]
            self._release(_FRAME_BYTES + len(pending.payload))
        self._reply(payload)

    def fail(self, error: LayerwireError | bytes) -> None:
        """The stream ends by this error, after the answers that are there."""
        if self._failure is None:
            self._failure = error
        self._write_soon()

    def drain(self) -> None:
        """Takes no further frames; ends when all are answered."""
        self._drains = True
        self._write_soon()

    def give_up(self) -> None:
        """Ends at once, though the client reads nothing."""
        self._admission.rejections["unread_answers"].add()
        self._context.cancel()
        self._leave()

    def accept(self, message: bytes) -> None:
        """Takes a message in; the stream ends by a LayerwireError that this raises."""
        tag = message[0] if message else None
        if tag == _CALLS_TAG:
            self.enter(StreamPending(self, message))
        elif tag == _CANCEL_TAG:
            self._take_cancellation(message)
        elif tag == message_parts.TAG:
            self._take_part(message)
        elif tag == _MEMORY_TAG:
            self._share_memory()
        else:
            raise InvalidArgumentError("stream: frame must be set to calls or cancel")

    def enter(self, pending: Pending) -> None:
        """Sends a frame to a worker, or keeps it until the client has read more."""
        nbytes = _FRAME_BYTES + len(pending.payload)
        self._between_bytes += nbytes
        self._hold(nbytes)
        self._waiting_frames.append(pending)
        self._submit(_UNREAD_BYTES)

    def _submit(self, most_unread_bytes: float) -> None:
        """Sends the frames that wait to workers, if no more than so much is unread."""
        while self._waiting_frames and self._unread_bytes <= most_unread_bytes:
            pending = self._waiting_frames.popleft()
            self._router.submit(pending)
            self._frames[pending.number] = pending

    def messages(self, replies: list[bytes | memoryview]) -> Iterator[bytes]:
        """The messages that replies are sent in."""
        for message in together(replies):
            if isinstance(message, bytes):
                yield message
            else:
                self._streams.count_answer_copies(len(message))
                yield from in_parts(message, self._hold_unread)

    def _hold_unread(self, nbytes: int) -> None:
        self._hold(nbytes)
        self._unread_bytes += nbytes

    def _read_on(self) -> None:
        """Asks for the next message, once there is room for it; for more parts at once, as gRPC reads on too.

        Between those parts as much as a message may come besides, or one that never ends would open the way for all.
        """
        if self._drains or self._is_over or self._failure is not None:
            return
        if self._large_request.is_open and self._between_bytes <= self._admission.max_message_bytes + _FRAME_BYTES:
            self._context.receive(self._take_message)
        elif self._held_bytes >= self._streams.max_stream_bytes:
            self._waits_for_room = True
        elif self._admission.full:
            self._admission.on_room(self._read_on)
        else:
            self._context.receive(self._take_message)

    def _take_message(self, message: bytes | None) -> None:
        if self._drains or self._is_over:
            return
        if message is None:
            self._reads = False
            self._write_soon()
            return
        try:
            self._streams.received_bytes.add(len(message))
            self._admission.check(len(message))
            self.accept(message)
        except LayerwireError as error:
            self.fail(error.with_traceback(None))  # which would keep the message
        except Exception:
            identity = request_id(self.number)
            self._streams.services.log.exception("stream can't be read", request=identity)
            self.fail(InternalError(f"internal error {identity}", error_id=identity))
        self._read_on()

    def _take_part(self, part: bytes) -> None:
        self.sends_parts = True
        if not self._large_request.is_open:
            self._between_bytes = 0
        message, link = self._large_request.add(part)
        if message is not None:
            self._streams.count_request_copies(len(message))
        if message is None:
            return
        if message and message[0] == _CALLS_TAG:
            self.enter(StreamPending(self, message, link))
        elif message and message[0] == message_parts.TAG:  # each level would be copied
            raise InvalidArgumentError("stream: part must be of calls or cancel", field="part")
        else:
            self.accept(bytes(message))

    def _share_memory(self) -> None:
        """Answers with memory, once; whoever asks again gets the same."""
        if self._memory is None:
            self._memory = self._streams.memories.make()
        reply = client_memory.answer(self._memory)
        self._reply(reply)

    def _take_cancellation(self, message: bytes) -> None:
        if len(message) > _MOST_CANCELLATION_BYTES:
            self._admission.rejections["cancellations"].add()
            raise InvalidArgumentError(
                f"stream: cancel must be at most {_MOST_CANCELLATION_BYTES} bytes a message, got {len(message)}",
                field="cancel",
            )
        self._submit(math.inf)  # so that all that may be meant is where cancellations go
        self._router.cancel_calls(self._frames.values(), self.number, message)

    def _reply(self, reply: bytes | memoryview) -> None:
        """Writes a reply soon; none where it is empty."""
        if reply:
            self._hold_unread(len(reply))
            self._replies.append(reply)
        self._write_soon()

    def _write_soon(self) -> None:
        """Writes when all is done that the loop has at hand, so that answers which come together leave together."""
        if not self._will_write and not self._is_writing:
            self._will_write = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self, _: bool = True) -> None:
        """Writes the next message, or ends the stream if none is to come."""
        self._will_write = False
        if self._is_over or self._is_writing or not self._context.has_room(self._write):
            return
        message = self._message
        if message is None and self._replies:
            replies, self._replies = self._replies, []
            self._messages = self.messages(replies)
            message = next(self._messages, None)
        if message is not None:
            self._message = next(self._messages, None)
            self._send(message)
        elif self._failure is not None:
            self._end(self._failure)
        elif self._frames or self._waiting_frames or (self._reads and not self._drains):
            return
        elif self._drains:
            self._end(UnavailableError("the server is stopping"))
        else:
            self._over("OK")
            self._context.end(grpc.StatusCode.OK)

    def _send(self, message: bytes) -> None:
        self._write_time = time.monotonic()
        if len(message) <= _SMALL_BYTES:  # nobody needs to wake up when it is out
            self._context.send(message)
            self._after_write(len(message), True)
        else:
            self._is_writing = True
            self._context.send(message, partial(self._after_write, len(message)))

    def _after_write(self, nbytes: int, success: bool) -> None:
        self._is_writing = False
        if success and not self._is_over:
            self._streams.sent_bytes.add(nbytes)
            self._unread_bytes -= nbytes
            self._release(nbytes)
            self._submit(_UNREAD_BYTES)
            ends = self._drains or not self._reads or self._failure is not None
            if ends or self._replies or self._message is not None:
                self._write_soon()

    def _end(self, error: LayerwireError | bytes) -> None:
        status = status_of(error)
        self._over(code_of(status).name)
        refuse(self._context, status, self.number)

    def _leave(self) -> None:
        """The client is gone."""
        if not self._is_over:
            self._over("CANCELLED")

    def _over(self, code: str) -> None:
        """Lets go of everything; frames that are not answered are given up."""
        self._is_over = True
        self._context.on_cancel = None
        for pending in self._frames.values():
            self._router.abandon(pending)
        self._admission.release(self._held_bytes, time.monotonic())
        self._held_bytes = 0
        if self._memory is not None:
            self._streams.memories.release(self._memory)
            self._memory = None
        self._frames, self._replies, self._messages, self._message = {}, [], iter(()), None
        self._waiting_frames.clear()
        self._streams.over(self, code)

    def _hold(self, nbytes: int) -> None:
        self._held_bytes += nbytes
        self._admission.hold(nbytes)

    def _release(self, nbytes: int) -> None:
        self._held_bytes -= nbytes
        self._admission.release(nbytes, time.monotonic())
        if self._waits_for_room and self._held_bytes < self._streams.max_stream_bytes:
            self._waits_for_room = False
            self._read_on()
