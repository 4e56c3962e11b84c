"""What a server says of its health: grpc.health.v1, spoken in bytes.

It knows the two messages of that protocol and gRPC's calls; nothing of Layerwire.

The package with the generated classes isn't needed for it: the request for the whole server is the empty message, and
the answer "serving" is its field 1 with the value 1.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

_CHECK = "/grpc.health.v1.Health/Check"
_WATCH = "/grpc.health.v1.Health/Watch"
_WHOLE_SERVER = b""
_SERVING = b"\x08\x01"


async def is_serving(channel: grpc.aio.Channel, metadata: Any, timeout_seconds: float) -> bool:
    """Whether the server says that it serves; one without a health service does by answering at all.

    Raises:
        grpc.aio.AioRpcError: it can't be asked.
    """
    check: Any = channel.unary_unary(_CHECK)
    try:
        answer: bytes = await check(_WHOLE_SERVER, metadata=metadata, timeout=timeout_seconds)
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return True
        raise
    return answer.startswith(_SERVING)


async def watch(channel: grpc.aio.Channel, metadata: Any) -> AsyncIterator[bool]:
    """Whether the server serves, each time that changes. Ends where the server has no health service, after True.

    Raises:
        grpc.aio.AioRpcError: the connection is gone.
    """
    method: Any = channel.unary_stream(_WATCH)
    stream = method(_WHOLE_SERVER, metadata=metadata)
    try:
        async for answer in stream:
            yield answer.startswith(_SERVING)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.UNIMPLEMENTED:
            raise
        yield True
    finally:
        stream.cancel()
