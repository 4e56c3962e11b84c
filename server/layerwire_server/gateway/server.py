"""RPCs on grpcio's core, served by the event loop's thread.

It knows gRPC's core and which handler a method has; nothing of what handlers do.

It stands where grpc.aio's server could, and handlers are made as for that one. grpc.aio makes several tasks for each
RPC and wakes two threads for each event of it: 230 us and ten wake-ups an RPC. Here it takes 30 to 70 us. What is used
of `grpc._cython.cygrpc` is what grpcio's own server (`grpc/_server.py`) is made of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from layerwire.errors import LayerwireError
from layerwire_server.gateway.access import ANYBODY, Caller
from layerwire_server.gateway.completions import Completions, Event
from layerwire_server.gateway.server_call import Handler, ServerCall


class Server:
    """The server.

    Args:
        options: gRPC's channel arguments.
        handlers: they say which method is served by what.
        admit: says whose an RPC is, or raises a LayerwireError, by which it ends before its request is read.
        alone: nobody else in this process uses gRPC, so that its sockets can be watched by the loop itself.
    """

    def __init__(
        self,
        options: Sequence[tuple[str, int]],
        handlers: Sequence[grpc.GenericRpcHandler],
        admit: Callable[[Event], Caller] = lambda _: ANYBODY,
        *,
        alone: bool = False,
    ) -> None:
        self._admit = admit
        self._completions = Completions()
        self._server = cygrpc.Server(tuple(options), False)
        self._server.register_completion_queue(self._completions.queue)
        self._generic_handlers = handlers
        self._handlers: dict[bytes, Handler | None] = {}
        self._alone = alone
        self._address, self._port = "", 0
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Future[None] | None = None
        self._is_stopped = False
        self._tasks: set[asyncio.Task[None]] = set()  # of handlers: the loop holds tasks only weakly

    def add_port(self, address: str, credentials: grpc.ServerCredentials | None = None) -> int:
        """Binds, for plain connections unless there are credentials; the port.

        Raises:
            RuntimeError: the address can't be had.
        """
        secrets: Any = () if credentials is None else (credentials._credentials,)  # type: ignore[attr-defined]  # noqa: SLF001  # as grpcio's own server
        self._address, self._port = address, self._server.add_http2_port(address.encode(), *secrets)
        if not self._port:
            raise RuntimeError(f"Failed to bind to address {address}; set GRPC_VERBOSITY=debug for details")
        return self._port

    def start(self) -> None:
        """Takes RPCs from now on, for the loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._server.start()
        self._request_call()
        self._completions.start(self._address, self._port, alone=self._alone)

    async def stop(self, grace_seconds: float) -> None:
        """Takes no more RPCs, at once; returns when all are done. After the grace they are cancelled."""
        if self._end is None:
            self._end = self._loop.create_future()
            self._server.shutdown(self._completions.queue, self._shut_down)
            self._completions.expect()
        _, pending = await asyncio.wait({self._end}, timeout=grace_seconds)
        if pending:
            self._server.cancel_all_calls()
            self._completions.expect()
            await asyncio.shield(self._end)
        if not self._is_stopped:
            self._is_stopped = True
            await self._completions.stop()
            self._server.destroy()

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that does a handler's work."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _request_call(self) -> None:
        queue = self._completions.queue
        self._server.request_call(queue, queue, self._new_event)

    def _new_event(self, event: Event) -> None:
        if event.success:
            self._request_call()
            self._take(event)

    def _shut_down(self, _: Event) -> None:
        assert self._end is not None
        self._end.set_result(None)

    def _take(self, event: Event) -> None:
        try:
            caller = self._admit(event)
        except LayerwireError as error:
            _end(event, error.code, error.message)
            return
        method: bytes = event.call_details.method
        try:
            handler = self._handlers[method]
        except KeyError:
            handler = self._find(event)
        if handler is None:
            _end(event, grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        else:
            ServerCall(self.run, self._completions, event, handler, caller).open()

    def _find(self, event: Event) -> Handler | None:
        """The handler of a method that hasn't been called before; names that aren't served aren't remembered."""
        details: Any = _CallDetails(event.call_details.method.decode("utf-8", "replace"))
        for each in self._generic_handlers:
            handler = each.service(details)
            if handler is not None:
                self._handlers[event.call_details.method] = handler
                return handler
        return None


class _CallDetails(NamedTuple):
    """What generic handlers want to know of an RPC."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


def _end(event: Event, code: grpc.StatusCode, details: str) -> None:
    """Ends an RPC that no handler has seen."""
    operations = (
        cygrpc.SendInitialMetadataOperation(None, 0),
        cygrpc.ReceiveCloseOnServerOperation(0),
        cygrpc.SendStatusFromServerOperation(None, code.value[0], details.encode(), 0),
    )
    event.call.start_server_batch(operations, partial(_let_go, event.call))


def _let_go(_: object, __: Event) -> None:
    """The end of a call that nobody else has, so that it would be cancelled."""
