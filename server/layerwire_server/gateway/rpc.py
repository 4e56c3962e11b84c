"""All RPCs but the streams of calls: admitted or refused, served by a worker or from the store's files, and counted.

It knows gRPC's contexts, the router, and the errors of stores and workers; nothing of the bytes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from layerwire.errors import InternalError, InvalidArgumentError, LayerwireError
from layerwire_server.child.log import Log
from layerwire_server.errors import caller_error
from layerwire_server.gateway.admission import Admission
from layerwire_server.gateway.pending import Pending
from layerwire_server.gateway.refusal import RefusedError, code_of, refuse, status_of
from layerwire_server.gateway.router import Router
from layerwire_server.link import Family, Kind, request_id
from layerwire_server.metrics import Metrics
from layerwire_server.storage import StoreError

_LARGE_BYTES = 65536  # from here on an answer is counted by Admission until the client has it
# gRPC rounds timeouts up on their way, so clients give up before the deadline that is known here: 12 ms in one trial.
_ROUNDING_SECONDS = 0.02

Value = TypeVar("Value")
Context = grpc.aio.ServicerContext[Any, Any]


class UnaryPending(Pending):
    """A unary request; its future gets the answer, or the error."""

    __slots__ = ("future",)

    def __init__(self, family: Family, payload: bytes, arrived: float, deadline: float) -> None:
        super().__init__(Kind.UNARY, payload, arrived, deadline, family)
        self.future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def answer(self, payload: bytes, last: bool) -> None:
        """Router: the answer."""
        if not self.future.done():
            self.future.set_result(payload)

    def fail(self, error: LayerwireError | bytes) -> None:
        """Router: the error."""
        if not self.future.done():
            self.future.set_exception(RefusedError(error))


class Services:
    """What all RPCs share: router, admission, metrics, log."""

    def __init__(self, router: Router, admission: Admission, metrics: Metrics, log: Log) -> None:
        self.router = router
        self.admission = admission
        self.metrics = metrics
        self.log = log

    async def ask(self, family: Family, payload: bytes, context: Context, number: int = 0) -> bytes:
        """What a worker answers; `number` is that of the RPC, if the request is what the RPC came with.

        Raises:
            RefusedError: it answered with an error.
        """
        now = time.monotonic()
        remaining_seconds: float | None = context.time_remaining()  # None without a deadline, whatever the stubs say
        deadline = math.inf if remaining_seconds is None else now + remaining_seconds
        pending = UnaryPending(family, payload, now, deadline)
        pending.number = number
        del payload
        self.router.submit(pending)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self.router.abandon(pending)
            raise
        finally:
            del pending  # an error in its future, and that error's traceback, would keep each other and the request


class Rpc:
    """One RPC.

    Args:
        name: its name in the service, for metrics.
        services: what it shares with others.
        operator: its name in errors of the store.
        exhaustion: why an admitted call counts as rejected that ends with RESOURCE_EXHAUSTED; "" if others count it.
    """

    def __init__(self, name: str, services: Services, operator: str = "", exhaustion: str = "") -> None:
        self.name = name
        self.services = services
        self.received_bytes = services.metrics.counter("layerwire_received_bytes_total", method=name)
        self.sent_bytes = services.metrics.counter("layerwire_sent_bytes_total", method=name)
        self._operator = operator
        self._exhaustion = services.admission.rejections[exhaustion] if exhaustion else None
        self._ok = services.metrics.counter("layerwire_requests_total", method=name, code="OK")
        self._seconds = services.metrics.histogram("layerwire_request_seconds", method=name)

    async def serve(
        self, work: Coroutine[Any, Any, Value], context: Context, number: int = 0, nbytes: int = 0
    ) -> Value:
        """What the work gives; if that is an error, the RPC ends by it.

        Args:
            work: what is to be done once the call is admitted.
            context: gRPC's.
            number: the call's.
            nbytes: bytes of its request.
        """
        admission, begin = self.services.admission, time.monotonic()
        number = number or self.services.router.next_number()
        is_admitted = False
        answer: Value | None = None
        try:
            admission.admit(nbytes, begin)
            is_admitted = True
            answer = await work
            if isinstance(answer, bytes) and len(answer) > _LARGE_BYTES:
                self._hold(len(answer), context)
        except asyncio.CancelledError:
            self._count("DEADLINE_EXCEEDED" if _is_late(context) else "CANCELLED")
            raise
        except Exception as error:
            status = status_of(self._answer_to(error, number))
        else:
            self._ok.add()
            return answer
        finally:
            if is_admitted:
                now = time.monotonic()
                admission.leave(nbytes, now)
                self._seconds.observe(now - begin)
        work.close()  # where it wasn't admitted
        answer = None  # which the aborted RPC would keep
        code = code_of(status)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and is_admitted and self._exhaustion is not None:
            self._exhaustion.add()
        self._count(code.name)
        self.services.log.debug("request refused", request=request_id(number), method=self.name, code=code.name)
        return await refuse(context, status, number)

    def _answer_to(self, error: Exception, number: int) -> LayerwireError | bytes:
        """What the client learns of an error."""
        if isinstance(error, RefusedError):
            return error.error
        if isinstance(error, StoreError):
            answer = caller_error(error, self._operator)
            if answer.code is not grpc.StatusCode.INTERNAL:
                return answer
        if isinstance(error, LayerwireError):
            return error
        identity = request_id(number)
        self.services.log.error("request failed", request=identity, method=self.name, exc_info=error)
        return InternalError(f"internal error {identity}", error_id=identity)

    def _hold(self, nbytes: int, context: Context) -> None:
        admission = self.services.admission
        admission.hold_answer(nbytes, time.monotonic())

        def release(_: Context) -> None:
            admission.release_answer(nbytes, time.monotonic())

        context.add_done_callback(release)  # type: ignore[arg-type]  # the stubs' callback is a class, not a protocol

    def _count(self, code: str) -> None:
        self.services.metrics.counter("layerwire_requests_total", method=self.name, code=code).add()


class WorkerRpc(Rpc):
    """A unary RPC whose request's bytes go to a worker, and the answer's come back.

    Args:
        name: its name in the service, for metrics.
        family: what the worker takes its bytes for.
        services: what it shares with others.
        names_changed: awaited before a client gets the answer, where names in the store are others then.
    """

    def __init__(
        self, name: str, family: Family, services: Services, names_changed: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        super().__init__(name, services, exhaustion="" if names_changed is None else "store_bytes")
        self.family = family
        self._names_changed = names_changed

    async def handle(self, payload: bytes, context: Context) -> bytes:
        """gRPC: one request."""
        nbytes, number = len(payload), self.services.router.next_number()
        self.received_bytes.add(nbytes)
        work = self.work(payload, context, number)
        del payload
        answer = await self.serve(work, context, number, nbytes)
        self.sent_bytes.add(len(answer))
        return answer

    def work(self, payload: bytes, context: Context, number: int) -> Coroutine[Any, Any, bytes]:
        """The answer, which is a worker's unless a subclass knows better; RefusedError if there is none."""
        if self._names_changed is not None:
            return self._change(payload, context, number, self._names_changed)
        return self.services.ask(self.family, payload, context, number)

    async def _change(
        self, payload: bytes, context: Context, number: int, names_changed: Callable[[], Awaitable[None]]
    ) -> bytes:
        answer = await self.services.ask(self.family, payload, context, number)
        await names_changed()
        return answer


def _is_late(context: Context) -> bool:
    remaining_seconds: float | None = context.time_remaining()
    return remaining_seconds is not None and remaining_seconds < _ROUNDING_SECONDS


def parse(message: Any, payload: bytes) -> Any:
    """The message with the payload's fields.

    Raises:
        InvalidArgumentError: the payload is no such message.
    """
    try:
        message.ParseFromString(payload)
    except DecodeError:
        raise InvalidArgumentError(f"the message is no {message.DESCRIPTOR.name}") from None
    return message
