"""grpc.health.v1: what is serving, told when asked and on every change.

It doesn't know how health is found out. The servicer of grpcio-health-checking is not used: its Watch holds a lock
while it writes, so that one watcher who doesn't read blocks every change, and the first to leave silences the others.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

_Status = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[Any, Any]
SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health:
    """Whether each service is serving; all are not once `stop` was called.

    Args:
        services: names that can be asked for; "" is the server as a whole.
    """

    def __init__(self, services: tuple[str, ...]) -> None:
        self._serving = dict.fromkeys(services, False)
        self._changed = asyncio.Event()
        self._stopped = False
        self._ended = False

    def set(self, serving: dict[str, bool]) -> None:
        """The services' states from now on."""
        if not self._stopped and any(self._serving[name] != state for name, state in serving.items()):
            self._serving.update(serving)
            self._tell()

    def stop(self) -> None:
        """Nothing is serving from now on."""
        self._stopped = True
        self._serving = dict.fromkeys(self._serving, False)
        self._tell()

    def end(self) -> None:
        """Ends all watches: whoever stops would wait for watchers until its patience is over."""
        self._ended = True
        self._tell()

    def serving(self, service: str) -> bool:
        """Whether a service is serving."""
        return self._serving[service]

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, service: str) -> Any:
        serving = self._serving.get(service)
        if serving is None:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if serving else _Status.NOT_SERVING

    def handlers(self) -> grpc.GenericRpcHandler:
        """GRPC's handlers of the service. They take bytes, for what can't be parsed grpcio would answer UNKNOWN."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, None, _Status.SerializeToString),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, None, _Status.SerializeToString),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    async def check(self, request: bytes, context: Context) -> Any:
        """The state of a service; NOT_FOUND where there is no such service."""
        service = await _service(request, context)
        if service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _Status(status=self._status(service))

    async def watch(self, request: bytes, context: Context) -> None:
        """The state of a service now and on every change, until the client leaves or `end`."""
        service = await _service(request, context)
        told = None
        while True:
            changed, status = self._changed, self._status(service)
            if status != told:
                await context.write(_Status(status=status))
                told = status
            elif self._ended:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            else:
                await changed.wait()


async def _service(request: bytes, context: Context) -> str:
    """The name that is asked for."""
    try:
        return str(health_pb2.HealthCheckRequest.FromString(request).service)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message is no HealthCheckRequest")
