"""Unary RPCs: a request's bytes go to a worker, the answer's come back.

It knows gRPC's contexts and the router; nothing of the bytes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import grpc

from layerwire.errors import InternalError, LayerwireError
from layerwire_server.child.log import Log
from layerwire_server.gateway.admission import Admission
from layerwire_server.gateway.pending import Pending
from layerwire_server.gateway.refusal import code_of, refuse, status_of
from layerwire_server.gateway.router import Router
from layerwire_server.link import Family, Kind, request_id
from layerwire_server.metrics import Metrics

_LARGE_BYTES = 65536  # from here on an answer is held in the books until the client has it

Context = grpc.aio.ServicerContext[bytes, bytes]
After = Callable[[bytes], Awaitable[None]]


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

    def forget(self) -> None:
        """Lets go of request and answer, once the router is done with it.

        An aborted RPC and its traceback know each other, and would keep them until the next full collection.
        """
        self.payload = b""
        del self.future


class RefusedError(Exception):
    """A request ended by an error, which `error` tells."""

    def __init__(self, error: LayerwireError | bytes) -> None:
        super().__init__()
        self.error = error


class UnaryMethod:
    """One unary RPC.

    Args:
        name: its name in the service, for metrics.
        family: what the worker takes its bytes for.
        after: what to do with the answer before the client gets it.
        exhausted: why a call counts as rejected that the worker answers with RESOURCE_EXHAUSTED; "" if it counts them.
    """

    def __init__(
        self, name: str, family: Family, router: Router, admission: Admission, metrics: Metrics, log: Log,
        after: After | None = None, exhausted: str = "",
    ) -> None:  # fmt: skip
        self._name = name
        self._family = family
        self._router = router
        self._admission = admission
        self._metrics = metrics
        self._log = log
        self._after = after
        self._exhausted = admission.rejected[exhausted] if exhausted else None
        self._ok = metrics.counter("layerwire_requests_total", method=name, code="OK")
        self._seconds = metrics.histogram("layerwire_request_seconds", method=name)
        self._received = metrics.counter("layerwire_received_bytes_total", method=name)
        self._sent = metrics.counter("layerwire_sent_bytes_total", method=name)

    async def handle(self, payload: bytes, context: Context) -> bytes:
        """gRPC: one request."""
        arrived = time.monotonic()
        nbytes = len(payload)
        self._received.add(nbytes)
        remaining: float | None = context.time_remaining()  # None without a deadline, whatever the stubs say
        deadline = math.inf if remaining is None else arrived + remaining
        pending = UnaryPending(self._family, payload, arrived, deadline)
        del payload
        try:
            self._admission.admit(nbytes, arrived)
        except LayerwireError as error:
            return await self._refuse(context, error, pending)
        try:
            answer = await self._answer(pending)
        except RefusedError as refused:
            if self._exhausted is not None and _is_exhausted(refused.error):
                self._exhausted.add()
            return await self._refuse(context, refused.error, pending)
        except asyncio.CancelledError:
            self._router.abandon(pending)
            self._count("DEADLINE_EXCEEDED" if time.monotonic() >= deadline else "CANCELLED")
            raise
        finally:
            now = time.monotonic()
            self._admission.leave(nbytes, now)
            self._seconds.observe(now - arrived)
        if len(answer) > _LARGE_BYTES:
            try:
                self._hold(len(answer), context)
            except LayerwireError as error:
                del answer
                return await self._refuse(context, error, pending)
        self._ok.add()
        self._sent.add(len(answer))
        return answer

    async def _answer(self, pending: UnaryPending) -> bytes:
        try:
            answer = await self._work(pending)
            if self._after is not None:
                await self._after(answer)
        except RefusedError:
            raise
        except Exception as error:
            identity = request_id(pending.number)
            self._log.exception("request failed", request=identity, method=self._name)
            internal = InternalError(f"internal error {identity}", error_id=identity)
            raise RefusedError(internal) from error
        return answer

    async def _work(self, pending: UnaryPending) -> bytes:
        """The answer, which is a worker's unless a subclass knows better; RefusedError if there is none."""
        self._router.submit(pending)
        return await pending.future

    def _hold(self, nbytes: int, context: Context) -> None:
        self._admission.hold_answer(nbytes, time.monotonic())

        def done(_: Context) -> None:
            self._admission.release_answer(nbytes, time.monotonic())

        context.add_done_callback(done)  # type: ignore[arg-type]  # the stubs' callback is a class, not a protocol

    async def _refuse(self, context: Context, error: LayerwireError | bytes, pending: UnaryPending) -> bytes:
        pending.forget()
        status = status_of(error)
        code = code_of(status)
        self._count(code.name)
        self._log.debug("request refused", request=request_id(pending.number), method=self._name, code=code.name)
        await refuse(context, status, pending.number)

    def _count(self, code: str) -> None:
        self._metrics.counter("layerwire_requests_total", method=self._name, code=code).add()


def _is_exhausted(error: LayerwireError | bytes) -> bool:
    return code_of(status_of(error)) is grpc.StatusCode.RESOURCE_EXHAUSTED
