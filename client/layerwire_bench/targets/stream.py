"""The target that the SDK's own users have: calls travel together on one stream.

It knows the SDK's engine and its calls; nothing of load, and not what answers should be.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self, TypeAlias

from layerwire.calls import Request
from layerwire.errors import LayerwireError, ResourceExhaustedError
from layerwire.transport.admission import Ticket
from layerwire.transport.call import NOBODY, Call
from layerwire.transport.engine import Engine
from layerwire.transport.sessions import LoopSession
from layerwire.transport.settings import Settings
from layerwire.transport.templates import AnswerTemplate, CallTemplate
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
        self._templates: dict[CallTemplate, _UnreadTemplate] = {}

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
        template = call.template
        call.template = self._templates.setdefault(template, _UnreadTemplate(template))
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

    def outputs(self, call: StreamCall, answer: _Answer) -> Arrays:
        request = call[1]
        tensors = answer.tensors()
        names = request.outputs or tensors
        return {name: contract.array(name, *tensors[name]) for name in names if name in tensors}

    def _wait(self, engine: Engine, call: _CopiedCall) -> None:
        def admit() -> None:
            self._line.pop(call, None)
            engine.submit(call)

        ticket = engine.admission.queue(call.nbytes, admit)
        if not ticket.is_admitted:
            self._line[call] = ticket


class _Answer(NamedTuple):
    """An answer as it came: its row of those that are alike."""

    template: AnswerTemplate
    data: Sequence[bytes | memoryview]
    rows: int
    row: int

    def tensors(self) -> dict[str, tuple[int, tuple[int, ...], bytes | memoryview]]:
        """Dtype, shape and data of each tensor; raises ValueError if they don't agree with one another."""
        template, columns, rows, row = self
        if len(columns) != len(template.tensors) or any(len(column) % rows for column in columns):
            raise ValueError("a group of answers has other data than its template says")
        sizes = [len(column) // rows for column in columns]
        return {
            name: (dtype, shape, column[row * size : (row + 1) * size])
            for (name, (dtype, shape)), column, size in zip(template.tensors, columns, sizes, strict=True)
        }


class _UnreadTemplate(CallTemplate):
    """A template whose calls are answered with what came, unread."""

    __slots__ = ()

    def __init__(self, of: CallTemplate) -> None:
        super().__init__(of.signature, of.entry, of.options, of.function, of.outputs, of.make)

    def values(self, answer: AnswerTemplate, count: int, data: Sequence[bytes | memoryview]) -> list[Any]:
        """The answers; raises the error that they are."""
        if answer.result != self.signature.family:
            raise self.error(answer)
        return [_Answer(answer, data, count, row) for row in range(count)]


class _CopiedCall(Call):
    """A copy of a call that was made ready, and its own promise: one object for each call that is made."""

    __slots__ = ("_callback",)

    def __init__(self, of: Call, callback: Callback) -> None:
        self._callback = callback
        timeout = of.template.options.timeout
        self.begin(of.template, of.data, math.inf if timeout is None else _now() + timeout, self)

    def done(self) -> bool:
        """As a promise: somebody waits."""
        return False

    def set_result(self, result: Any) -> None:
        self._callback(result, "OK", "")

    def set_exception(self, exception: Any) -> None:
        if isinstance(exception, LayerwireError):
            self.end(exception.code.name, exception.message)
        else:
            self.end("INTERNAL", f"the client failed: {exception!r}")

    def end(self, status: str, message: str) -> None:
        self.promise = NOBODY  # or the call would hold itself, and wait for the garbage collector
        self._callback(None, status, message)
