"""All RPCs but the streams of calls: admitted or refused, served by a worker or from the store's files, and counted.

It knows gRPC's contexts, the router, and the errors of stores and workers; nothing of the bytes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from layerwire.errors import InternalError, InvalidArgumentError, LayerwireError
from layerwire_server.child.log import Log
from layerwire_server.errors import caller_error
from layerwire_server.gateway.admission import Account, Admission
from layerwire_server.gateway.message_bytes import message_counters
from layerwire_server.gateway.pending import Pending
from layerwire_server.gateway.refusal import RefusedError, code_of, refuse, status_of
from layerwire_server.gateway.router import Router
from layerwire_server.gateway.server_call import ServerCall
from layerwire_server.link import Family, Kind, request_id
from layerwire_server.metrics import Metrics
from layerwire_server.storage import StoreError

_LARGE_BYTES = 65536  # from here on an answer is counted by Admission until the client has it
# gRPC rounds timeouts up on their way, so clients give up before the deadline that is known here: 12 ms in one trial.
_ROUNDING_SECONDS = 0.02

Value = TypeVar("Value")
Context: TypeAlias = ServerCall


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
        pending = UnaryPending(family, payload, now, deadline_of(context, now))
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
        self.received_bytes, self.sent_bytes = message_counters(services.metrics, name)
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

        Raises:
            AbortError: the RPC has ended by an error.
        """
        admission, begin = self.services.admission, time.monotonic()
        account = admission.account(context.peer())
        number = number or self.services.router.next_number()
        is_admitted = False
        answer: Value | None = None
        try:
            admission.admit(nbytes, begin, account)
            is_admitted = True
            answer = await work
            if isinstance(answer, bytes) and len(answer) > _LARGE_BYTES:
                self.hold(len(answer), context)
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
                admission.leave(nbytes, now, account)
                self._seconds.observe(now - begin)
        work.close()  # where it wasn't admitted
        answer = None  # which the aborted RPC would keep
        if is_admitted and self._exhaustion is not None and code_of(status) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            self._exhaustion.add()
        self._refuse(status, context, number)
        raise grpc.aio.AbortError

    def _refuse(self, status: Status, context: Context, number: int) -> None:
        code = code_of(status)
        self._count(code.name)
        self.services.log.debug("request refused", request=request_id(number), method=self.name, code=code.name)
        refuse(context, status, number)

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

    def hold(self, nbytes: int, context: Context) -> None:
        """Counts a large answer until the client has it.

        Raises:
            ResourceExhaustedError: there is no room.
        """
        admission = self.services.admission
        admission.hold_answer(nbytes, time.monotonic())

        context.add_done_callback(lambda _: admission.release_answer(nbytes, time.monotonic()))

    def _count(self, code: str) -> None:
        self.services.metrics.counter("layerwire_requests_total", method=self.name, code=code).add()


class ForwardRpc(Rpc):
    """A unary RPC whose request's bytes go to a worker, and the answer's come back: no task, no future, two callbacks.

    Args:
        name: its name in the service, for metrics.
        family: what the worker takes its bytes for.
        services: what it shares with others.
    """

    def __init__(self, name: str, family: Family, services: Services) -> None:
        super().__init__(name, services)
        self.family = family

    def begin(self, payload: bytes, context: Context) -> None:
        """Server: one request."""
        now, number = time.monotonic(), self.services.router.next_number()
        self.received_bytes.add(len(payload))
        admission, deadline = self.services.admission, deadline_of(context, now)
        account = admission.account(context.peer())
        try:
            if deadline < math.inf:
                admission.check_deadline(
                    deadline - now, self.services.router.delay_seconds(now), context.delay_seconds(now)
                )
            admission.admit(len(payload), now, account)
        except LayerwireError as error:
            self.refuse(error.with_traceback(None), context, number)
            return
        pending = ForwardPending(self, context, payload, now, deadline, account)
        pending.number = number
        context.on_cancel = pending.cancel
        self.services.router.submit(pending)

    def finish(self, payload: bytes, context: Context, number: int) -> None:
        """The answer goes to the client."""
        if len(payload) > _LARGE_BYTES:
            try:
                self.hold(len(payload), context)
            except LayerwireError as error:
                self.refuse(error.with_traceback(None), context, number)
                return
        self._ok.add()
        self.sent_bytes.add(len(payload))
        context.finish(payload)

    def refuse(self, error: LayerwireError | bytes, context: Context, number: int) -> None:
        """The client gets an error."""
        status = status_of(error)
        self._refuse(status, context, number)

    def leave(self, nbytes: int, begin: float, account: Account) -> None:
        """A request is done with."""
        now = time.monotonic()
        self.services.admission.leave(nbytes, now, account)
        self._seconds.observe(now - begin)

    def count_cancelled(self, context: Context) -> None:
        """The client has given up."""
        self._count("DEADLINE_EXCEEDED" if _is_late(context) else "CANCELLED")


class ForwardPending(Pending):
    """A request of such an RPC, and the call that it is to be answered by."""

    __slots__ = ("account", "context", "rpc")

    def __init__(
        self, rpc: ForwardRpc, context: Context, payload: bytes, now: float, deadline: float, account: Account
    ) -> None:
        super().__init__(Kind.UNARY, payload, now, deadline, rpc.family, account.number)
        self.rpc = rpc
        self.account = account
        self.context = context

    def answer(self, payload: bytes, last: bool) -> None:
        """Router: the answer."""
        self._leave()
        self.rpc.finish(payload, self.context, self.number)

    def fail(self, error: LayerwireError | bytes) -> None:
        """Router: the error."""
        self._leave()
        self.rpc.refuse(error, self.context, self.number)

    def cancel(self) -> None:
        """Server: the client is gone."""
        self._leave()
        self.rpc.count_cancelled(self.context)
        self.rpc.services.router.abandon(self)

    def _leave(self) -> None:
        self.context.on_cancel = None  # which would keep this, and this the call
        self.rpc.leave(len(self.payload), self.arrived, self.account)


class WorkerRpc(Rpc):
    """A unary RPC that a worker's answer is part of.

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


def deadline_of(context: Context, now: float) -> float:
    """When the client stops waiting, on the clock of `now`."""
    remaining_seconds = context.time_remaining()
    return math.inf if remaining_seconds is None else now + remaining_seconds


def _is_late(context: Context) -> bool:
    remaining_seconds = context.time_remaining()
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
