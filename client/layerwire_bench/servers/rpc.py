"""A blocking connection to a server, for the few questions before and beside the load.

It knows gRPC; no protocol in particular.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError, Message

from layerwire.errors import InternalError, make
from layerwire.transport import reasons
from layerwire.transport.settings import is_loopback

TIMEOUT_SECONDS = 10.0


class ServerConnection(NamedTuple):
    """A server that can be asked: "host:port", and a channel to it."""

    address: str
    channel: grpc.Channel

    def ask(self, path: str, request: Message, answer: Any) -> Any:
        """What a method answers, as a message of the class `answer`; `path` is "/package.Service/Method".

        Raises:
            LayerwireError: it answered with an error, or couldn't be reached.
        """
        call: Any = self.channel.unary_unary(path)
        try:
            return answer.FromString(call(request.SerializeToString(), timeout=TIMEOUT_SECONDS))
        except grpc.RpcError as error:
            reason = reasons.explain(error.details() or "", tls=False)
            raise make(error.code(), f"{self.address}: {reason}") from None
        except DecodeError:
            raise InternalError(f"{self.address}: the answer of {path} is no message of its type") from None


@contextmanager
def connect(address: str) -> Iterator[ServerConnection]:
    """A connection to a server."""
    options = [("grpc.enable_http_proxy", 0)] if is_loopback(address) else []
    with grpc.insecure_channel(address, options) as channel:
        yield ServerConnection(address, channel)
