"""RPCs that the gateway serves itself, from the store's files: counted, held to the limits, and ended by an error.

It knows gRPC's contexts and the errors of stores and workers; nothing of what is served.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from layerwire.errors import InternalError, InvalidArgumentError, LayerwireError
from layerwire_server import storage_status
from layerwire_server.child.log import Log
from layerwire_server.gateway.admission import Admission
from layerwire_server.gateway.refusal import code_of, refuse, status_of
from layerwire_server.gateway.router import Router
from layerwire_server.gateway.unary import RefusedError, UnaryPending
from layerwire_server.link import Family, request_id
from layerwire_server.metrics import Metrics
from layerwire_server.storage import StoreError

Value = TypeVar("Value")
Context = grpc.aio.ServicerContext[Any, Any]


class Services:
    """What RPCs on files share: router, books, metrics, log."""

    def __init__(self, router: Router, admission: Admission, metrics: Metrics, log: Log) -> None:
        self.router = router
        self.admission = admission
        self.metrics = metrics
        self.log = log

    async def ask(self, family: Family, payload: bytes, context: Context) -> bytes:
        """What a worker answers.

        Raises:
            RefusedError: it answered with an error.
        """
        now = time.monotonic()
        remaining: float | None = context.time_remaining()
        deadline = math.inf if remaining is None else now + remaining
        pending = UnaryPending(family, payload, now, deadline)
        self.router.submit(pending)
        try:
            return await pending.future
        except asyncio.CancelledError:
            self.router.abandon(pending)
            raise


class FileMethod:
    """One RPC on files.

    Args:
        name: its name in the service, for metrics.
        operator: its name in errors.
    """

    def __init__(self, name: str, operator: str, services: Services) -> None:
        self._name = name
        self._operator = operator
        self._services = services
        self._seconds = services.metrics.histogram("layerwire_request_seconds", method=name)
        self.received = services.metrics.counter("layerwire_received_bytes_total", method=name)
        self.sent = services.metrics.counter("layerwire_sent_bytes_total", method=name)

    async def serve(self, work: Awaitable[Value], context: Context) -> Value:
        """What the work gives; if that is an error, the RPC ends by it."""
        arrived, admission = time.monotonic(), self._services.admission
        number = self._services.router.next_number()
        code = "OK"
        admitted = False
        try:
            admission.admit(0, arrived)
            admitted = True
            return await work
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:
            status = status_of(self._told(error, number))
            code = code_of(status).name
            if code == "RESOURCE_EXHAUSTED" and admitted:
                admission.rejected["store_bytes"].add()
        finally:
            if asyncio.iscoroutine(work):
                work.close()  # where it wasn't admitted
            now = time.monotonic()
            if admitted:
                admission.leave(0, now)
            self._seconds.observe(now - arrived)
            self._services.metrics.counter("layerwire_requests_total", method=self._name, code=code).add()
        return await refuse(context, status, number)

    def _told(self, error: Exception, number: int) -> LayerwireError | bytes:
        if isinstance(error, RefusedError):
            return error.error
        if isinstance(error, StoreError):
            told = storage_status.told(error, self._operator)
            if told.code is not grpc.StatusCode.INTERNAL:
                return told
        if isinstance(error, LayerwireError):
            return error
        identity = request_id(number)
        self._services.log.error("request failed", request=identity, method=self._name, exc_info=error)
        return InternalError(f"internal error {identity}", error_id=identity)


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
