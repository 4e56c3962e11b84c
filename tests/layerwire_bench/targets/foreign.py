"""A server of the contract and of the Open Inference Protocol that a test scripts: it holds calls, or answers wrongly.

It runs on the test's own event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

import grpc
import grpc.aio

from layerwire.v1 import layerwire_pb2 as pb

PATIENCE_SECONDS = 20.0
Script = Callable[[bytes, Any], Awaitable[bytes]]


class Foreign:
    """Serves every unary method by `script`, and a Stream that reads and never answers.

    Attributes:
        script: called with the request's bytes and the context; default: holds the call until the server stops.
        came: calls that arrived.
        peers: who called.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or self._hold
        self.came = 0
        self.peers: set[str] = set()
        self.port = 0
        self._changed = asyncio.Condition()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.port = self._server.add_insecure_port(self.address)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    async def until(self, calls: int) -> None:
        """Returns when so many have come."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: self.came >= calls)

    async def unary(self, request: bytes, context: Any) -> bytes:
        await self._count(1, context)
        return await self.script(request, context)

    async def stream(self, _: Any, context: Any) -> None:
        while (frame := await context.read()) is not grpc.aio.EOF:
            await self._count(len(pb.StreamRequest.FromString(frame).calls.calls), context)

    async def _count(self, calls: int, context: Any) -> None:
        async with self._changed:
            self.came += calls
            self.peers.add(context.peer())
            self._changed.notify_all()

    async def _hold(self, request: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, owner: Foreign) -> None:
        self._owner = owner

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method.endswith("/Stream"):
            return grpc.stream_stream_rpc_method_handler(self._owner.stream)
        return grpc.unary_unary_rpc_method_handler(self._owner.unary)
