"""RPCs on grpcio's core: a thread takes events from its completion queue, the event loop's thread does all the rest.

It knows gRPC's core and which handler a method has; nothing of what handlers do.

It stands where grpc.aio's server could, and handlers are made as for that one. grpc.aio makes several tasks for each
RPC and wakes two threads for each event of it: 230 us and ten wake-ups an RPC. Here it takes 30 to 70 us. What is used
of `grpc._cython.cygrpc` is what grpcio's own server (`grpc/_server.py`) is made of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from layerwire_server.gateway.server_call import Event, Handler, ServerCall

log = logging.getLogger(__name__)

_NEW = "a new RPC"  # the one tag that is no function


class Server:
    """The server.

    Attributes:
        event_time: since when the events that the loop handles now have waited for it, on the monotonic clock.

    Args:
        options: gRPC's channel arguments.
        handlers: they say which method is served by what.
    """

    def __init__(self, options: Sequence[tuple[str, int]], handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(tuple(options), False)
        self._server.register_completion_queue(self._queue)
        self._generic_handlers = handlers
        self._handlers: dict[bytes, Handler | None] = {}
        self._actions: deque[tuple[Callable[[Any], None], Any]] = deque()  # for the loop
        self._is_awake = False
        self._wake_time = 0.0
        self.event_time = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._poll, name="grpc", daemon=True)
        self._end: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # of handlers: the loop holds tasks only weakly

    def add_insecure_port(self, address: str) -> int:
        """Binds; the port.

        Raises:
            RuntimeError: the address can't be had.
        """
        port: int = self._server.add_http2_port(address.encode())
        if not port:
            raise RuntimeError(f"Failed to bind to address {address}; set GRPC_VERBOSITY=debug for details")
        return port

    def start(self) -> None:
        """Takes RPCs from now on, for the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._server.start()
        self._request_call()
        self._thread.start()

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more RPCs, at once; returns when all are done. After the grace they are cancelled."""
        if self._end is None:
            self._end = self._loop.create_future()
            self._server.shutdown(self._queue, self._shut_down)
        _, pending = await asyncio.wait({self._end}, timeout=grace_seconds)
        if pending:
            self._server.cancel_all_calls()
            await asyncio.shield(self._end)
        if self._thread.is_alive():
            self._queue.shutdown()
            await asyncio.to_thread(self._thread.join)
            self._server.destroy()

    def post(self, function: Callable[[Any], None], argument: Any) -> None:
        """Lets the loop call a function, from any thread."""
        self._actions.append((function, argument))
        if not self._is_awake:
            self._is_awake = True
            self._wake_time = time.monotonic()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to care
                self._loop.call_soon_threadsafe(self._act)

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that does a handler's work."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _request_call(self) -> None:
        self._server.request_call(self._queue, self._queue, _NEW)

    def _poll(self) -> None:
        """The thread. Tags are functions of this thread, which leave to the loop what is more than a few lines."""
        while True:
            event = self._queue.poll(None)
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
            try:
                if event.tag is not _NEW:
                    event.tag(event)
                elif event.success:
                    self._request_call()
                    self._take(event)
            except Exception:
                log.exception("an event of an RPC can't be handled")
            del event  # a call that is over would otherwise live until the next event

    def _shut_down(self, _: Event) -> None:
        assert self._end is not None
        self.post(self._end.set_result, None)

    def _take(self, event: Event) -> None:
        method: bytes = event.call_details.method
        try:
            handler = self._handlers[method]
        except KeyError:
            handler = self._find(event)
        if handler is None:
            operations = (
                cygrpc.SendInitialMetadataOperation(None, 0),
                cygrpc.ReceiveCloseOnServerOperation(0),
                cygrpc.SendStatusFromServerOperation(
                    None, grpc.StatusCode.UNIMPLEMENTED.value[0], b"Method not found!", 0
                ),
            )
            event.call.start_server_batch(operations, partial(_let_go, event.call))
        else:
            ServerCall(self, event, handler).open()

    def _find(self, event: Event) -> Handler | None:
        """The handler of a method that hasn't been called before; names that aren't served aren't remembered."""
        details: Any = _CallDetails(event.call_details.method.decode("utf-8", "replace"))
        for each in self._generic_handlers:
            handler = each.service(details)
            if handler is not None:
                self._handlers[event.call_details.method] = handler
                return handler
        return None

    def _act(self) -> None:
        self.event_time = self._wake_time
        self._is_awake = False
        actions = self._actions
        for _ in range(len(actions)):
            function, argument = actions.popleft()
            try:
                function(argument)
            except Exception:
                log.exception("an event of an RPC can't be handled")


class _CallDetails(NamedTuple):
    """What generic handlers want to know of an RPC."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


def _let_go(_: Any, __: Event) -> None:
    """The end of a call that nobody else has, so that it would be cancelled."""
