"""ModelStreamInfer: requests go to workers as they come, answers go back as they finish, each in a message of its own.

It knows gRPC's streams and how an answer is wrapped; of the bytes only a request's names and id.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from layerwire.errors import LayerwireError
from layerwire.inference_v2.open_inference_pb2 import (
    InferParameter,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from layerwire.wire.protobuf import prefix
from layerwire_server.gateway import spans
from layerwire_server.gateway.pending import Pending
from layerwire_server.gateway.refusal import status_of
from layerwire_server.gateway.stream import Context, Stream, Streams
from layerwire_server.link import Family, Kind

_ANSWER = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
# Triton says so of every answer that is its request's last, and here each is. Put behind an answer's own bytes, it is
# one more field of it.
_FINAL = ModelInferResponse(parameters={"triton_final_response": InferParameter(bool_param=True)}).SerializeToString()


class InferPending(Pending):
    """A request of a stream."""

    __slots__ = ("owner",)

    def __init__(self, owner: InferStream, payload: bytes) -> None:
        super().__init__(Kind.UNARY, payload, time.monotonic(), math.inf, Family.INFER, owner.number)
        self.owner = owner

    def answer(self, payload: bytes, last: bool) -> None:
        """Router: the answer."""
        self.owner.take(self, _stream_answer(payload), last=True)

    def fail(self, error: LayerwireError | bytes) -> None:
        """Router: the error, which is this request's alone."""
        message = ModelStreamInferResponse(error_message=status_of(error).message or "unknown error")
        answer = _stream_answer(spans.infer_names(self.payload))
        self.owner.take(self, message.SerializeToString() + answer, last=True)


class InferStreams(Streams):
    """The RPC, and all its streams that are open."""

    method = "ModelStreamInfer"

    def begin(self, context: Context) -> InferStream:
        """See Streams."""
        return InferStream(self, context)


class InferStream(Stream):
    """One stream."""

    def accept(self, message: bytes) -> None:
        """See Stream; what is wrong with a request a worker says."""
        self.enter(InferPending(self, message))

    def messages(self, replies: list[bytes]) -> Iterator[bytes]:
        """See Stream."""
        return iter(replies)


def _stream_answer(answer: bytes) -> bytes:
    return prefix(_ANSWER, len(answer) + len(_FINAL)) + answer + _FINAL
