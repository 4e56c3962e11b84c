"""The Open Inference Protocol, `inference.GRPCInferenceService`: which of its methods is served by what.

It knows the methods, how an answer of a stream is wrapped, and whether the server is ready; of a request's bytes only
names and id, and nothing of models or tensors, which are a worker's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any

import grpc

from layerwire.errors import LayerwireError, UnavailableError
from layerwire.inference_v2 import open_inference_pb2
from layerwire.inference_v2.open_inference_pb2 import (
    InferParameter,
    ModelInferResponse,
    ModelStatistics,
    ModelStatisticsResponse,
    ModelStreamInferResponse,
)
from layerwire.wire.protobuf import prefix
from layerwire_server.gateway import spans
from layerwire_server.gateway.pending import Pending
from layerwire_server.gateway.refusal import RefusedError, status_of
from layerwire_server.gateway.rpc import Context, ForwardRpc, Services, WorkerRpc
from layerwire_server.gateway.stream import Stream, Streams
from layerwire_server.gateway.workers import Workers
from layerwire_server.link import Family, Flag, Frame, Kind

SERVICE_NAME: str = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
EXTENSIONS = ("model_configuration", "schedule_policy", "statistics")
FORWARDED = {
    "ModelInfer": Family.INFER,
    "ModelMetadata": Family.MODEL_METADATA,
    "ModelConfig": Family.MODEL_CONFIG,
    "RepositoryIndex": Family.REPOSITORY_INDEX,
}
_ANSWER = ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER
# Triton says so of every answer that is its request's last, and here each is. Put behind an answer's own bytes, it is
# one more field of it.
_FINAL = ModelInferResponse(parameters={"triton_final_response": InferParameter(bool_param=True)}).SerializeToString()


class Inference:
    """The service.

    Attributes:
        streams: those that are open.

    Args:
        services: router, admission, metrics and log.
        workers: the links to them.
        max_stream_bytes: most bytes that a stream may hold.
        ready: whether the server takes calls.
    """

    def __init__(self, services: Services, workers: Workers, max_stream_bytes: int, ready: Callable[[], bool]) -> None:
        self._services = services
        self._workers = workers
        self._ready = ready
        self.streams = InferStreams(services, max_stream_bytes)

    def methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Handlers of all methods."""
        services = self._services
        unary: dict[str, Any] = {name: ForwardRpc(name, family, services) for name, family in FORWARDED.items()}
        unary |= {
            "ModelReady": ModelReadyRpc(services, self._ready).handle,
            "ModelStatistics": StatisticsRpc(services, self._workers).handle,
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
        }
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            name: grpc.unary_unary_rpc_method_handler(handle) for name, handle in unary.items()
        }
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self.streams)  # type: ignore[arg-type]
        return handlers

    async def _server_live(self, _: bytes, context: object) -> bytes:
        return open_inference_pb2.ServerLiveResponse(live=True).SerializeToString()

    async def _server_ready(self, _: bytes, context: object) -> bytes:
        return open_inference_pb2.ServerReadyResponse(ready=self._ready()).SerializeToString()

    async def _server_metadata(self, _: bytes, context: object) -> bytes:
        return open_inference_pb2.ServerMetadataResponse(
            name="layerwire", version=version("layerwire"), extensions=EXTENSIONS
        ).SerializeToString()


class ModelReadyRpc(WorkerRpc):
    """ModelReady: while the server isn't ready no model is; else a worker says whether it is there."""

    def __init__(self, services: Services, ready: Callable[[], bool]) -> None:
        super().__init__("ModelReady", Family.MODEL_READY, services)
        self._ready = ready

    async def work(self, payload: bytes, context: Context, number: int) -> bytes:
        """See WorkerRpc."""
        if not self._ready():
            return open_inference_pb2.ModelReadyResponse().SerializeToString()
        return await super().work(payload, context, number)


class StatisticsRpc(WorkerRpc):
    """The RPC."""

    def __init__(self, services: Services, workers: Workers) -> None:
        super().__init__("ModelStatistics", Family.MODEL_STATISTICS, services)
        self._workers = workers

    async def work(self, payload: bytes, context: Context, number: int) -> bytes:
        """See WorkerRpc."""
        frame = Frame(Kind.UNARY, payload=payload, family=self.family, arrived=time.monotonic())
        answers = [answer for answer in await self._workers.ask_all(frame) if answer is not None]
        statistics = [bytes(answer.payload) for answer in answers if not answer.flags & Flag.ERROR]
        if statistics:
            return total(map(ModelStatisticsResponse.FromString, statistics)).SerializeToString()
        if answers:
            raise RefusedError(bytes(answers[0].payload))
        raise RefusedError(UnavailableError("the server has no worker now"))


def total(answers: Iterable[ModelStatisticsResponse]) -> ModelStatisticsResponse:
    """All workers' statistics as one."""
    totals: dict[tuple[str, str], ModelStatistics] = {}
    for answer in answers:
        for model in answer.model_stats:
            key = model.name, model.version
            if key in totals:
                _add(totals[key], model)
            else:
                totals[key] = model
    return ModelStatisticsResponse(model_stats=totals.values())


def _add(total: ModelStatistics, more: ModelStatistics) -> None:
    total.last_inference = max(total.last_inference, more.last_inference)
    total.inference_count += more.inference_count
    total.execution_count += more.execution_count
    _add_durations(total.inference_stats, more.inference_stats)
    sizes = {batch.batch_size: batch for batch in total.batch_stats}
    for batch in more.batch_stats:
        if batch.batch_size in sizes:
            _add_durations(sizes[batch.batch_size], batch)
        else:
            total.batch_stats.add().CopyFrom(batch)


def _add_durations(total: Any, more: Any) -> None:
    for field, duration in more.ListFields():
        if field.message_type is not None:
            mine = getattr(total, field.name)
            mine.count += duration.count
            mine.ns += duration.ns


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
    initial_metadata = ()

    def new(self, context: Context) -> InferStream:
        """See Streams."""
        return InferStream(self, context)


class InferStream(Stream):
    """One stream."""

    def accept(self, message: bytes) -> None:
        """See Stream; what is wrong with a request a worker says."""
        self.enter(InferPending(self, message))

    def messages(self, replies: list[bytes | memoryview]) -> Iterator[bytes]:
        """See Stream."""
        return map(bytes, replies)


def _stream_answer(answer: bytes) -> bytes:
    return prefix(_ANSWER, len(answer) + len(_FINAL)) + answer + _FINAL
