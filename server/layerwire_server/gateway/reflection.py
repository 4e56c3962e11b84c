"""gRPC reflection, v1 and v1alpha, from one servicer: their messages are the same on the wire.

It knows no service but by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from layerwire_server.gateway.server_call import ServerCall

NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def handlers(services: tuple[str, ...], end: asyncio.Event) -> list[grpc.GenericRpcHandler]:
    """Handlers that list these services, and of reflection itself; `end` ends those that nobody asks anything."""
    servicer = aio.ReflectionServicer((*services, NAMES[1]))  # the Python package has no descriptor of v1 to tell of

    async def answer(requests: AsyncIterator[bytes], call: ServerCall) -> AsyncIterator[Any]:
        async for response in servicer.ServerReflectionInfo(_messages(_until(end, requests), call), call):
            yield response

    method: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        answer, response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString
    )
    return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in NAMES]


async def _until(end: asyncio.Event, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The requests that come before the end."""
    end_task = asyncio.ensure_future(end.wait())
    try:
        while True:
            request = asyncio.ensure_future(anext(requests, None))
            try:
                await asyncio.wait({request, end_task}, return_when=asyncio.FIRST_COMPLETED)
                payload = request.result() if request.done() else None
            finally:
                request.cancel()
            if payload is None:
                return
            yield payload
    finally:
        end_task.cancel()


async def _messages(requests: AsyncIterator[bytes], call: ServerCall) -> AsyncIterator[Any]:
    """The requests as messages; here and not by grpcio, which answers UNKNOWN to what can't be parsed."""
    async for request in requests:
        try:
            yield reflection_pb2.ServerReflectionRequest.FromString(request)
        except DecodeError:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message is no ServerReflectionRequest")
