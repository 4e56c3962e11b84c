"""The target that any gRPC client is: one RPC a call, over as many connections as are needed.

It knows grpc.aio and the contract's RPCs; nothing of load, and not what answers should be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

from layerwire.transport import reasons
from layerwire.transport.settings import Settings
from layerwire.v1 import layerwire_pb2 as messages
from layerwire_bench.targets import channels, contract
from layerwire_bench.targets.target import CLOSED, Callback, Target
from layerwire_bench.workload import Arrays, Entry, Sample

_SERVICE = messages.DESCRIPTOR.services_by_name["LayerwireService"]
# Family -> its RPC: the one whose request is the family's message of Call.
_RPCS = {
    field.name: method
    for field in messages.Call.DESCRIPTOR.fields
    for method in _SERVICE.methods
    if method.input_type is field.message_type
}


class UnaryCall(NamedTuple):
    """A call: its RPC's path, the request's bytes, and what reads the answer's."""

    path: str
    payload: bytes
    read: Callable[[bytes], Arrays]


class UnaryTarget(Target):
    """Calls are RPCs of their own, their requests' bytes made once. It works against any server of the contract.

    Args:
        settings: of one address.
        timeout_seconds: of each call; None: none.
    """

    def __init__(self, settings: Settings, timeout_seconds: float | None) -> None:
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._metadata = settings.metadata or None
        self._tasks: set[asyncio.Task[bytes]] = set()
        self._turn = 0
        self._closed = False

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        self._channels = channels.Channels(lambda: settings.channel(settings.addresses[0]))
        self._methods: dict[str, list[Any]] = {}
        await channels.connect(self._channels.all[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closed = True
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        await self._channels.close()
        await asyncio.sleep(0)  # for calls that callbacks of those that were given up made

    def prepare(self, sample: Sample, entry: Entry) -> UnaryCall:
        request = sample.request
        call = contract.call(sample, entry, None)  # gRPC tells the server how long the caller waits
        frame = b"".join(call.entry.parts(0, call.data))
        payload = getattr(messages.Calls.FromString(frame).calls[0], request.family).SerializeToString()
        method = _RPCS[request.family]
        response: Any = message_factory.GetMessageClass(method.output_type)
        path = f"/{_SERVICE.full_name}/{method.name}"
        return UnaryCall(path, payload, lambda answer: contract.outputs(request, response.FromString(answer)))

    def fire(self, call: UnaryCall, callback: Callback) -> None:
        """Starts the RPC on the next connection."""
        if self._closed:
            self._loop.call_soon(callback, None, "CANCELLED", CLOSED)
            return
        task = self._loop.create_task(self._answer(self._method(call.path), call.payload))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._finish(task, callback))

    def outputs(self, call: UnaryCall, answer: bytes) -> Arrays:
        try:
            return call.read(answer)
        except DecodeError:
            raise ValueError(f"the answer of {call.path} is no message of its type") from None

    def _method(self, path: str) -> Any:
        methods = self._methods.setdefault(path, [])
        count = self._channels.count(len(self._tasks) + 1)
        if len(methods) < count:
            methods.extend(channel.unary_unary(path) for channel in self._channels.all[len(methods) :])
        self._turn = turn = (self._turn + 1) % count
        return methods[turn]

    async def _answer(self, method: Any, payload: bytes) -> bytes:
        answer: bytes = await method(payload, timeout=self._timeout_seconds, metadata=self._metadata)
        return answer

    def _finish(self, task: asyncio.Task[bytes], callback: Callback) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            callback(None, "CANCELLED", CLOSED)
        elif error is None:
            callback(task.result(), "OK", "")
        elif isinstance(error, grpc.aio.AioRpcError):
            reason = reasons.explain(error.details() or "", tls=self._settings.credentials is not None)
            callback(None, error.code().name, f"{self._settings.addresses[0]}: {reason}")
        else:
            callback(None, "INTERNAL", f"the client failed: {error!r}")
