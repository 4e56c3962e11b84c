"""grpc.health.v1: what is serving, answered when asked and on every change.

It doesn't know how health is found out. The servicer of grpcio-health-checking is not used: its Watch holds a lock
while it writes, so that one watcher who doesn't read blocks every change, and the first to leave silences the others.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from layerwire_server.gateway.server_call import ServerCall

_Status = health_pb2.HealthCheckResponse
SERVICE_NAME: str = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class Health:
    """Whether each service is serving; all are not once `stop` was called.

    Args:
        services: names that can be asked for; "" is the server as a whole.
    """

    def __init__(self, services: tuple[str, ...]) -> None:
        self._states = dict.fromkeys(services, False)
        self._change = asyncio.Event()
        self._is_stopped = False
        self._is_ended = False

    def set(self, states: dict[str, bool]) -> None:
        """The services' states from now on."""
        if not self._is_stopped and any(self._states[name] != state for name, state in states.items()):
            self._states.update(states)
            self._notify()

    def stop(self) -> None:
        """Nothing is serving from now on."""
        self._is_stopped = True
        self._states = dict.fromkeys(self._states, False)
        self._notify()

    def end(self) -> None:
        """Ends all watches: whoever stops would wait for watchers until its patience is over."""
        self._is_ended = True
        self._notify()

    def is_serving(self, service: str) -> bool:
        """Whether a service is serving."""
        return self._states[service]

    def _notify(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def _status(self, service: str) -> Any:
        state = self._states.get(service)
        if state is None:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if state else _Status.NOT_SERVING

    def handlers(self) -> grpc.GenericRpcHandler:
        """GRPC's handlers of the service. They take bytes, for what can't be parsed grpcio would answer UNKNOWN."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, None, _Status.SerializeToString),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, None, _Status.SerializeToString),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, methods)

    async def check(self, request: bytes, call: ServerCall) -> Any:
        """The state of a service; NOT_FOUND where there is no such service."""
        service = await _service(request, call)
        if service not in self._states:
            await call.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _Status(status=self._status(service))

    async def watch(self, request: bytes, call: ServerCall) -> None:
        """The state of a service now and on every change, until the client leaves or `end`."""
        service = await _service(request, call)
        last = None
        while True:
            change, status = self._change, self._status(service)
            if status != last:
                await call.write(_Status(status=status))
                last = status
            elif self._is_ended:
                await call.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
            else:
                await change.wait()


async def _service(request: bytes, call: ServerCall) -> str:
    """The name that is asked for."""
    try:
        return str(health_pb2.HealthCheckRequest.FromString(request).service)
    except DecodeError:
        await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message is no HealthCheckRequest")
