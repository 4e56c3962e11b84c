"""grpc.health.v1: what is serving, told when asked and on every change.

It doesn't know how health is found out. The servicer of grpcio-health-checking is not used: its Watch holds a lock
while it writes, so that one watcher who doesn't read blocks every change, and the first to leave silences the others.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_Status = health_pb2.HealthCheckResponse
SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it comes without types
    """Whether each service is serving; all are not once `stop` was called.

    Args:
        services: names that can be asked for; "" is the server as a whole.
    """

    def __init__(self, services: tuple[str, ...]) -> None:
        self._serving = dict.fromkeys(services, False)
        self._changed = asyncio.Event()
        self._stopped = False

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

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _status(self, service: str) -> Any:
        serving = self._serving.get(service)
        if serving is None:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if serving else _Status.NOT_SERVING

    async def Check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802  # gRPC's name
        """The state of a service; NOT_FOUND where there is no such service."""
        if request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _Status(status=self._status(request.service))

    async def Watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802  # gRPC's name
        """The state of a service now and on every change, until the client leaves."""
        told = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != told:
                await context.write(_Status(status=status))
                told = status
            else:
                await changed.wait()
