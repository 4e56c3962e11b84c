"""The gateway's parts joined to a gRPC server: which method is served by what, and the server's options.

It knows no worker and no bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc

from layerwire.v1 import layerwire_pb2
from layerwire.wire import message_parts
from layerwire_server.access.certificates import Certificates
from layerwire_server.child.child import Child
from layerwire_server.config import Settings
from layerwire_server.gateway import health, inference, reflection, store
from layerwire_server.gateway.access import Access, server_credentials
from layerwire_server.gateway.admission import Admission, max_received_bytes
from layerwire_server.gateway.router import Router
from layerwire_server.gateway.rpc import ForwardRpc, Services, WorkerRpc
from layerwire_server.gateway.server import Server
from layerwire_server.gateway.stream import Streams
from layerwire_server.gateway.workers import LINK_ROOM_BYTES, WorkerLink, Workers
from layerwire_server.link import MAX_CALLS, Family
from layerwire_server.storage import Store

SERVICE_NAME: str = layerwire_pb2.DESCRIPTOR.services_by_name["LayerwireService"].full_name
_STALL_CHECK_SECONDS = 5.0
_ACCESS_CHECK_SECONDS = 1.0
_STOP_ROOM_SECONDS = 2.0
_HANDSHAKE_SECONDS = 5.0
_MAX_PENDING_REQUESTS = 20_000
_NAMES = ("", SERVICE_NAME, store.SERVICE_NAME, inference.SERVICE_NAME)  # whose health is the server's

FAMILIES = {
    "Pool": Family.POOL,
    "Unpool": Family.UNPOOL,
    "Linear": Family.LINEAR,
    "Activate": Family.ACTIVATE,
    "Convolve": Family.CONVOLVE,
    "Normalize": Family.NORMALIZE,
    "Run": Family.RUN,
    "Differentiate": Family.DIFFERENTIATE,
    "Estimate": Family.ESTIMATE,
    "PutWeights": Family.PUT_WEIGHTS,
}

# What changes the store, or belongs to such a change. Of the rest, "infer" is enough.
ADMIN_METHODS = (
    f"/{SERVICE_NAME}/PutWeights",
    *(
        f"/{store.SERVICE_NAME}/{method}"
        for method in (
            *("GetUpload", "Upload", "NameWeights", "DeleteWeights"),
            *("PutProgram", "SetDefaultVersion", "DeleteProgram"),
        )
    ),
)


def options(settings: Settings) -> list[tuple[str, int]]:
    """GRPC's options for the server."""
    values = [
        *message_parts.CHANNEL_OPTIONS,
        ("grpc.so_reuseport", int(settings.gateways > 1)),  # else two servers could share a port by accident
        # Calls that the core has taken and Python not yet are refused at random beyond max_pending_requests, whoever
        # they belong to. So a connection's share is bounded well below, also where it resets its calls at once: that
        # is what the core's overload protection does (on unless said otherwise). It counts calls that aren't cleared
        # away yet, so the limit has to be out of reach of honest clients: with 100, half the calls of 256 were refused.
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.server.max_pending_requests", _MAX_PENDING_REQUESTS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _MAX_PENDING_REQUESTS),
        ("grpc.max_receive_message_length", max_received_bytes(int(settings.max_message_bytes))),
        ("grpc.max_send_message_length", int(settings.max_message_bytes) + LINK_ROOM_BYTES),
        ("grpc.server_handshake_timeout_ms", int(_HANDSHAKE_SECONDS * 1000)),  # silent connections end
    ]
    if settings.max_connection_age_seconds > 0:
        values.append(("grpc.max_connection_age_ms", int(settings.max_connection_age_seconds * 1000)))
        values.append(("grpc.max_connection_age_grace_ms", int(settings.grace_seconds * 1000)))
    return values


def server_info(settings: Settings, workers: Sequence[WorkerLink]) -> layerwire_pb2.GetServerInfoResponse:
    """The answer; of workers that never were up, only that they should be there."""
    first: Mapping[str, Any] = next((worker.hello for worker in workers if worker.hello), {})
    return layerwire_pb2.GetServerInfoResponse(
        version=version("layerwire"),
        torch_version=first.get("torch_version", ""),
        operators=sorted(first.get("operators", ())),
        numerics={name: str(value) for name, value in first.get("numerics", {}).items()},
        workers=[
            layerwire_pb2.Worker(
                index=worker.index,
                device=worker.hello.get("device", ""),
                device_name=worker.hello.get("device_name", ""),
                healthy=worker.live,
            )
            for worker in workers
        ],
        limits=layerwire_pb2.Limits(
            max_message_bytes=settings.max_message_bytes,
            max_output_bytes=settings.max_output_bytes,
            max_call_operations=int(settings.max_call_operations),
            max_queue_calls=settings.max_queue_calls,
            max_queue_bytes=settings.max_queue_bytes,
            max_requests_in_flight=settings.max_requests_in_flight,
            max_bytes_in_flight=settings.max_bytes_in_flight,
            max_weights_bytes=settings.max_weights_bytes,
            max_message_calls=MAX_CALLS,
            max_program_bytes=settings.max_program_bytes,
            max_store_bytes=settings.max_store_bytes,
        ),
    )


class Gateway:
    """The gateway: made, started, and stopped in three steps.

    Args:
        child: the process it is.
        alone: nobody else in this process uses gRPC.
    """

    def __init__(self, child: Child, *, alone: bool = False) -> None:
        self._child = child
        settings, metrics = child.settings, child.metrics
        self._router = Router(settings.unavailable_after_seconds, metrics)
        self._admission = Admission(settings, metrics)
        self._services = Services(self._router, self._admission, metrics, child.log)
        sizes = settings.max_stream_bytes, settings.shared_memory, settings.max_message_bytes
        self._streams = Streams(self._services, *map(int, sizes))
        self._workers = Workers(child, self._router, self._on_change)
        self._health = health.Health((*_NAMES, *(f"worker/{index}" for index in range(child.workers))))
        self._inference = inference.Inference(
            self._services, self._workers, int(settings.max_stream_bytes), lambda: self._health.is_serving("")
        )
        self._all_streams = (self._streams, self._inference.streams)
        self.live = asyncio.Event()
        self._end = asyncio.Event()
        self._gauges = {
            name: metrics.gauge(f"layerwire_{name}", gateway=str(child.index))
            for name in ("bytes_in_flight", "requests_in_flight", "streams")
        }
        child.before_snapshot = self._set_gauges
        tokens = Path(settings.tokens) if settings.tokens else None
        self._access = Access(tokens, ADMIN_METHODS, (f"/{health.SERVICE_NAME}/",), metrics)
        self._credentials = (
            server_credentials(Certificates(settings.tls_certificate, settings.tls_key, settings.tls_client_ca))
            if settings.tls_certificate
            else None
        )
        handlers = [
            grpc.method_handlers_generic_handler(SERVICE_NAME, self._methods()),
            grpc.method_handlers_generic_handler(store.SERVICE_NAME, self._store_methods()),
            grpc.method_handlers_generic_handler(inference.SERVICE_NAME, self._inference.methods()),
            self._health.handlers(),
        ]
        if tokens is None:
            handlers += reflection.handlers((*_NAMES[1:], health.SERVICE_NAME), self._end)
        self._server = Server(options(settings), handlers, self._access.caller, alone=alone)

    async def start(self) -> int:
        """Listens from now on; the port.

        Raises:
            RuntimeError: the address can't be had.
        """
        settings = self._child.settings
        port = self._server.add_port(settings.listen, self._credentials)
        self._server.start()
        return port

    async def keep(self) -> None:
        """Keeps links, canaries and streams in order until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._workers.keep())
            group.create_task(self._keep_access())
            while True:
                await asyncio.sleep(_STALL_CHECK_SECONDS)
                for streams in self._all_streams:
                    streams.end_stalled(time.monotonic())

    async def _keep_access(self) -> None:
        """Notices changes of the tokens, and ends the streams whose token isn't valid any more."""
        while self._access.needs_tokens:
            await asyncio.sleep(_ACCESS_CHECK_SECONDS)
            self._access.refresh()
            for streams in self._all_streams:
                streams.end_unwelcome(self._access.is_welcome)

    async def stop(self) -> None:
        """NOT_SERVING first, a pause for balancers to notice, then no new calls, and the end when all are answered."""
        settings = self._child.settings
        self._health.stop()
        await asyncio.sleep(settings.lame_duck_seconds)
        stop = asyncio.create_task(self._server.stop(settings.grace_seconds))  # sends GOAWAY at once
        await asyncio.sleep(0)
        for streams in self._all_streams:
            streams.drain()
        self._health.end()
        self._end.set()
        await asyncio.wait({stop}, timeout=settings.grace_seconds + _STOP_ROOM_SECONDS)

    def _methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for name, family in FAMILIES.items():
            names_changed = self._workers.names_changed if family is Family.PUT_WEIGHTS else None
            handler: Any = ForwardRpc(name, family, self._services)
            if names_changed is not None:
                handler = WorkerRpc(name, family, self._services, names_changed).handle
            methods[name] = grpc.unary_unary_rpc_method_handler(handler)
        methods["Stream"] = grpc.stream_stream_rpc_method_handler(self._streams)  # type: ignore[arg-type]
        methods["GetServerInfo"] = grpc.unary_unary_rpc_method_handler(self._get_server_info)
        return methods

    async def _get_server_info(self, _: bytes, context: object) -> bytes:
        return server_info(self._child.settings, self._workers.links).SerializeToString()

    def _store_methods(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        settings = self._child.settings
        directory = Store(Path(settings.store), settings.max_store_bytes)
        return store.methods(self._services, directory, self._workers.names_changed)

    def _on_change(self) -> None:
        workers = {f"worker/{link.index}": link.live and not link.late for link in self._workers.links}
        is_serving = any(workers.values())
        self._health.set({**dict.fromkeys(_NAMES, is_serving), **workers})
        if is_serving:
            self.live.set()

    def _set_gauges(self) -> None:
        self._gauges["bytes_in_flight"].set(self._admission.nbytes)
        self._gauges["requests_in_flight"].set(self._admission.requests)
        self._gauges["streams"].set(sum(len(streams.open) for streams in self._all_streams))
