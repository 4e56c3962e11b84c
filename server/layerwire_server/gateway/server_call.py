"""One RPC as its handler sees it: messages in and out, its end, and the client's.

It knows gRPC's core and what completes its operations; nothing of what handlers do.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn, Protocol, TypeAlias

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from layerwire_server.gateway.access import Caller
from layerwire_server.gateway.completions import Completions, Event

log = logging.getLogger(__name__)

_FOREVER_SECONDS = 1e15  # a deadline beyond is none
_OK = grpc.StatusCode.OK.value[0]

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
RunTask: TypeAlias = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class DirectHandler(Protocol):
    """A handler that is no coroutine; it stands in an RpcMethodHandler where a function would."""

    def begin(self, request: Any, call: ServerCall) -> None:
        """Takes an RPC on, and ends it by `call.finish` or `call.end`, now or later.

        Args:
            request: the request's bytes; where requests are a stream, the call.
            call: the RPC.
        """


class ServerCall:
    """One RPC, as its handler sees it. All of it is for the loop's thread.

    Attributes:
        caller: whose it is.
        is_sending: whether a message is on its way to gRPC; the next has to wait.
        on_cancel: called when the client gave up, or the connection broke, or the deadline passed before the end; a
            coroutine's is its task's.
    """

    __slots__ = (
        *("_call", "_completions", "_deadline", "_done_callbacks", "_handler", "_has_begun", "_is_over"),
        *("_on_message", "_on_room", "_run_task", "caller", "is_sending", "on_cancel"),
    )

    def __init__(
        self, run_task: RunTask, completions: Completions, event: Event, handler: Handler, caller: Caller
    ) -> None:
        self.caller = caller
        self._run_task = run_task
        self._completions = completions
        self._call = event.call
        self._deadline: float = event.call_details.deadline
        self._handler = handler
        self._has_begun = False  # initial metadata is out
        self._is_over = False  # the status is out, or the client is gone
        self._on_message: Callable[[bytes | None], None] | None = None
        self._on_room: Callable[[bool], None] | None = None
        self._done_callbacks: list[Callable[[Any], None]] = []
        self.is_sending = False
        self.on_cancel: Callable[[], object] | None = None

    def open(self) -> None:
        """Server: the RPC is new."""
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), self._close_event)
        if self._handler.request_streaming:
            self._begin(self)
        else:
            self._call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), self._request_event)

    # what handlers call

    def receive(self, callback: Callable[[bytes | None], None]) -> None:
        """Asks for the next message; the callback gets it, None after the last."""
        self._on_message = callback
        if self._call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), self._message_event):
            asyncio.get_running_loop().call_soon(self._take_message, None)
        self._completions.expect()

    def send(self, message: bytes, callback: Callable[[bool], None] | None = None) -> None:
        """Sends a message; the callback learns when gRPC has room for the next, or that none will be taken any more."""
        send = cygrpc.SendMessageOperation(message, 0)
        operations = (send,) if self._has_begun else (cygrpc.SendInitialMetadataOperation(None, 0), send)
        self._has_begun = self.is_sending = True
        self._on_room = callback
        if self._is_over or self._call.start_server_batch(operations, self._room_event):
            self.is_sending = False
            asyncio.get_running_loop().call_soon(self._take_room, False)
        elif callback is not None:
            self._completions.expect()

    def has_room(self, callback: Callable[[bool], None]) -> bool:
        """Whether a message can be sent now; else calls back when one can, instead of what `send` was told."""
        if self.is_sending:
            self._on_room = callback
            self._completions.expect()
        else:
            self._on_room = None
        return not self.is_sending

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Begins the answer before there is one."""
        if not self._has_begun and not self._is_over:
            self._has_begun = True
            self._call.start_server_batch((cygrpc.SendInitialMetadataOperation(metadata, 0),), _ignore)

    def finish(self, message: bytes) -> None:
        """Ends a unary RPC by its answer."""
        if self._is_over:
            return
        self._is_over = True
        operations = (
            cygrpc.SendInitialMetadataOperation(None, 0),
            cygrpc.SendMessageOperation(message, 0),
            cygrpc.SendStatusFromServerOperation(None, _OK, b"", 0),
        )
        self._end_by(operations)

    def end(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata | None = None) -> None:
        """Ends the RPC by a status, unless it is over."""
        if self._is_over:
            return
        self._is_over = True
        status = cygrpc.SendStatusFromServerOperation(trailing_metadata, code.value[0], details.encode(), 0)
        operations = (status,) if self._has_begun else (cygrpc.SendInitialMetadataOperation(None, 0), status)
        self._end_by(operations)

    async def read(self) -> Any:
        """The next message; grpc.aio.EOF after the last."""
        if self._on_message is None:
            future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
            self.receive(lambda message: None if future.done() else future.set_result(message))
        else:
            raise grpc.aio.UsageError("a message is being read")
        message = await future
        return grpc.aio.EOF if message is None else message

    async def write(self, message: Any) -> None:
        """Sends a message; returns when gRPC has room for the next."""
        serializer = self._handler.response_serializer
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def go_on(success: bool) -> None:
            if not future.done():
                future.set_result(None) if success else future.cancel()

        self.send(message if serializer is None else serializer(message), go_on)
        await future

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """Ends the RPC by a status; always raises."""
        self.end(code, details, trailing_metadata)
        raise grpc.aio.AbortError

    def __aiter__(self) -> ServerCall:
        """The messages that are yet to come."""
        return self

    async def __anext__(self) -> bytes:
        """The next message."""
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return bytes(message)

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None if there is none."""
        return None if self._deadline > _FOREVER_SECONDS else max(self._deadline - time.time(), 0.0)

    def delay_seconds(self, now: float) -> float:
        """How long a request that begins now has waited for the loop."""
        return now - self._completions.since

    def peer(self) -> str:
        """Where the connection comes from."""
        return str(self._call.peer().decode())

    def cancel(self) -> None:
        """Ends the RPC without a word, though what was sent may not have been read."""
        if not self._is_over:
            self._is_over = True
            self._call.cancel()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Calls back when the answer is out, or can't be any more."""
        self._done_callbacks.append(callback)

    # what gRPC has done

    def _request_event(self, event: Event) -> None:
        message = event.batch_operations[0].message()
        if message is not None:  # else the client has given up
            self._begin(message)

    def _message_event(self, event: Event) -> None:
        self._take_message(event.batch_operations[0].message())

    def _room_event(self, event: Event) -> None:
        self.is_sending = False
        if self._on_room is not None:
            self._take_room(bool(event.success))

    def _close_event(self, _: Event) -> None:
        """The RPC is over for gRPC: the client has everything, or is gone."""
        if not self._is_over:
            self._is_over = True
            on_cancel, self.on_cancel = self.on_cancel, None
            if on_cancel is not None:
                on_cancel()
            self._call_back()

    def _end_event(self, _: Event) -> None:
        self._call_back()

    # handlers

    def _begin(self, request: Any) -> None:
        handler = self._handler
        if self._is_over:
            return
        if handler.request_deserializer is not None:
            request = handler.request_deserializer(request)
        functions = (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
        function: Any = functions[2 * handler.request_streaming + handler.response_streaming]
        if hasattr(function, "begin"):
            try:
                function.begin(request, self)
            except Exception as error:
                self._fail(error)
            return
        self.on_cancel = self._run_task(self._run(function(request, self))).cancel

    async def _run(self, work: Any) -> None:
        serializer, is_stream = self._handler.response_serializer, self._handler.response_streaming
        try:
            if inspect.isasyncgen(work):
                async for message in work:
                    await self.write(message)
                answer: Any = None
            else:
                answer = await work
            if is_stream:
                self.end(grpc.StatusCode.OK)
            else:
                self.finish(answer if serializer is None else serializer(answer))
        except asyncio.CancelledError:
            self.cancel()
        except grpc.aio.AbortError:
            pass
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        log.error("a handler failed", exc_info=error)
        self.end(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")

    def _take_message(self, message: bytes | None) -> None:
        callback, self._on_message = self._on_message, None
        if callback is not None:
            callback(message)

    def _take_room(self, success: bool) -> None:
        if self.is_sending:  # the next already; another event follows
            return
        callback, self._on_room = self._on_room, None
        if callback is not None:
            callback(success and not self._is_over)

    def _end_by(self, operations: Sequence[Any]) -> None:
        self._call.start_server_batch(operations, self._end_event if self._done_callbacks else _ignore)
        self._completions.expect()

    def _call_back(self) -> None:
        callbacks, self._done_callbacks = self._done_callbacks, []
        for callback in callbacks:
            callback(self)


def _ignore(_: Event) -> None:
    """An event that changes nothing."""
