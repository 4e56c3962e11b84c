"""A blocking connection to a server, for the few questions before and beside the load.

It knows gRPC; no protocol in particular.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from layerwire.errors import InternalError, make
from layerwire.transport import reasons
from layerwire.transport.settings import is_loopback

TIMEOUT_SECONDS = 10.0


class Server:
    """A server that is asked.

    Args:
        address: "host:port".
        channel: to it.
    """

    def __init__(self, address: str, channel: grpc.Channel) -> None:
        self._address = address
        self._channel = channel

    def ask(self, path: str, request: Message, answer: Any) -> Any:
        """What a method answers, as a message of the class `answer`; `path` is "/package.Service/Method".

        Raises:
            LayerwireError: it answered with an error, or couldn't be reached.
        """
        call: Any = self._channel.unary_unary(path)
        try:
            return answer.FromString(call(request.SerializeToString(), timeout=TIMEOUT_SECONDS))
        except grpc.RpcError as error:
            told = reasons.explain(error.details() or "", tls=False)
            raise make(error.code(), f"{self._address}: {told}") from None
        except DecodeError:
            raise InternalError(f"{self._address}: the answer of {path} is no message of its type") from None


@contextmanager
def server(address: str) -> Iterator[Server]:
    """A connection to a server."""
    options = [("grpc.enable_http_proxy", 0)] if is_loopback(address) else []
    with grpc.insecure_channel(address, options) as channel:
        yield Server(address, channel)
