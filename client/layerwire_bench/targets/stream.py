"""The target that the SDK's own users have: calls travel together on one stream.

It knows the SDK's engine and its calls; nothing of load, and not what answers should be.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from typing import Any, Self, TypeAlias

from layerwire.calls import Request
from layerwire.errors import LayerwireError, ResourceExhaustedError
from layerwire.transport.admission import Ticket
from layerwire.transport.call import Call
from layerwire.transport.engine import Engine
from layerwire.transport.sessions import LoopSession
from layerwire.transport.settings import Settings
from layerwire.v1 import layerwire_pb2 as messages
from layerwire_bench.targets import channels, contract
from layerwire_bench.targets.target import CLOSED, Callback, Target
from layerwire_bench.workload import Arrays, Entry, Sample

MAX_CALLS_IN_FLIGHT = 1 << 17
MAX_BYTES_IN_FLIGHT = 2 << 30

StreamCall: TypeAlias = tuple[Call, Request]

_now = time.monotonic


class StreamTarget(Target):
    """Calls go through an engine of the SDK, which puts all that are waiting into one message.

    What the SDK would send again is an error here, so that it is seen. Calls over the engine's bound on calls and bytes
    in flight wait in line for room, as they would in an application.

    Args:
        settings: of one address; its retries and bounds are replaced.
        timeout_seconds: of each call; None: none.
    """

    def __init__(self, settings: Settings, timeout_seconds: float | None) -> None:
        settings = replace(
            settings, max_retries=0, max_calls_in_flight=MAX_CALLS_IN_FLIGHT, max_bytes_in_flight=MAX_BYTES_IN_FLIGHT
        )
        self._timeout_seconds = timeout_seconds
        self._session = LoopSession(settings)
        self._engine: Engine | None = None
        self._line: dict[_CopiedCall, Ticket] = {}

    async def __aenter__(self) -> Self:
        self._engine = self._session.engine()
        await channels.connect(self._engine.connections[0].channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        engine, self._engine = self._engine, None
        assert engine is not None
        while self._line:  # from its end, so that leaving makes room for nobody
            call, ticket = self._line.popitem()
            engine.admission.give_up(ticket)
            call.end("CANCELLED", CLOSED)
        await self._session.close()
        await asyncio.sleep(0)  # for calls that callbacks of those that were given up made

    def prepare(self, sample: Sample, entry: Entry) -> StreamCall:
        """The call, spelled out but for its id, and its request."""
        call = contract.call(sample, entry, self._timeout_seconds)
        try:
            if self._engine is not None:
                self._engine.check(call)
        except ResourceExhaustedError as error:
            raise ValueError(error.message) from None
        return call, sample.request

    def fire(self, call: StreamCall, callback: Callback) -> None:
        """Sends it with the next frame, or when there is room."""
        engine = self._engine
        if engine is None:
            asyncio.get_running_loop().call_soon(callback, None, "CANCELLED", CLOSED)
            return
        copy = _CopiedCall(call[0], callback)
        if engine.admission.enter(copy.nbytes):
            engine.submit(copy)
        else:
            self._wait(engine, copy)

    def outputs(self, call: StreamCall, answer: Any) -> Arrays:
        request = call[1]
        return contract.outputs(request, getattr(answer, request.family))

    def _wait(self, engine: Engine, call: _CopiedCall) -> None:
        def admit() -> None:
            self._line.pop(call, None)
            engine.submit(call)

        ticket = engine.admission.queue(call.nbytes, admit)
        if not ticket.is_admitted:
            self._line[call] = ticket


class _CopiedCall(Call):
    """A copy of a call that was made ready, and its own promise: one object for each call that is made."""

    __slots__ = ("_callback",)

    def __init__(self, of: Call, callback: Callback) -> None:
        self._callback = callback
        self.id = 0
        self.entry = of.entry
        self.data = of.data
        self.nbytes = of.nbytes
        timeout = of.options.timeout
        self.deadline = math.inf if timeout is None else _now() + timeout
        self.signature = of.signature
        self.options = of.options
        self.function = of.function
        self.promise = self
        self.tries = 0
        self.connection = None
        self.is_finished = False

    def value(self, answer: messages.Answer) -> messages.Answer:
        """The answer, unopened; raises the error that it is."""
        if answer.WhichOneof("result") != self.signature.family:
            raise self.error(answer)
        return answer

    def done(self) -> bool:
        """As a promise: somebody waits."""
        return False

    def set_result(self, result: Any) -> None:
        self.promise = contract.NOBODY  # or the call would hold itself, and wait for the garbage collector
        self._callback(result, "OK", "")

    def set_exception(self, exception: Any) -> None:
        if isinstance(exception, LayerwireError):
            self.end(exception.code.name, exception.message)
        else:
            self.end("INTERNAL", f"the client failed: {exception!r}")

    def end(self, status: str, message: str) -> None:
        self.promise = contract.NOBODY
        self._callback(None, status, message)
