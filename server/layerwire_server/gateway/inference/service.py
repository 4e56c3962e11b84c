"""The Open Inference Protocol, `inference.GRPCInferenceService`: which of its methods is served by what.

It knows the methods and whether the server is ready; nothing of models or tensors, which are a worker's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import grpc

from layerwire.inference_v2 import open_inference_pb2
from layerwire_server.gateway.inference.statistics import StatisticsRpc
from layerwire_server.gateway.inference.stream import InferStreams
from layerwire_server.gateway.rpc import Context, Services, WorkerRpc
from layerwire_server.gateway.workers import Workers
from layerwire_server.link import Family

SERVICE_NAME: str = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
EXTENSIONS = ("model_configuration", "schedule_policy", "statistics")
FORWARDED = {
    "ModelInfer": Family.INFER,
    "ModelMetadata": Family.MODEL_METADATA,
    "ModelConfig": Family.MODEL_CONFIG,
    "RepositoryIndex": Family.REPOSITORY_INDEX,
}


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


class Inference:
    """The service.

    Attributes:
        streams: those that are open.

    Args:
        services: router, books, metrics and log.
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
        unary: dict[str, Callable[[bytes, Any], Awaitable[bytes]]] = {
            name: WorkerRpc(name, family, services).handle for name, family in FORWARDED.items()
        }
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
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self.streams.handle)
        return handlers

    async def _server_live(self, _: bytes, context: object) -> bytes:
        return open_inference_pb2.ServerLiveResponse(live=True).SerializeToString()

    async def _server_ready(self, _: bytes, context: object) -> bytes:
        return open_inference_pb2.ServerReadyResponse(ready=self._ready()).SerializeToString()

    async def _server_metadata(self, _: bytes, context: object) -> bytes:
        return open_inference_pb2.ServerMetadataResponse(
            name="layerwire", version=version("layerwire"), extensions=EXTENSIONS
        ).SerializeToString()
