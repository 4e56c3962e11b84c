"""Whether a server says that it serves, once or each time that it changes.

It knows grpc.health.v1 and gRPC's calls; nothing of Layerwire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from layerwire.wire.health import CHECK, WATCH, is_serving, request


async def check(channel: grpc.aio.Channel, metadata: Any, timeout_seconds: float) -> bool:
    """Whether the server says that it serves; one without a health service does by answering at all.

    Raises:
        grpc.aio.AioRpcError: it can't be asked.
    """
    method: Any = channel.unary_unary(CHECK)
    try:
        answer: bytes = await method(request(), metadata=metadata, timeout=timeout_seconds)
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return True
        raise
    return is_serving(answer)


async def watch(channel: grpc.aio.Channel, metadata: Any) -> AsyncIterator[bool]:
    """Whether the server serves, each time that changes. Ends where the server has no health service, after True.

    Raises:
        grpc.aio.AioRpcError: the connection is gone.
    """
    method: Any = channel.unary_stream(WATCH)
    stream = method(request(), metadata=metadata)
    try:
        async for answer in stream:
            yield is_serving(answer)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.UNIMPLEMENTED:
            raise
        yield True
    finally:
        stream.cancel()
