"""The RPCs that aren't operator calls: how one is asked, and of them server information, estimates, readiness.

It knows channels and the contract; neither streams nor threads.
"""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import Future
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from layerwire.calls import Request
from layerwire.errors import (
    DeadlineExceededError,
    InternalError,
    LayerwireError,
    ResourceExhaustedError,
    from_status,
    make,
)
from layerwire.transport import health, reasons, retry
from layerwire.transport.call import REQUESTS, Call
from layerwire.transport.connection import Connection
from layerwire.transport.engine import Engine
from layerwire.transport.options import Options
from layerwire.v1 import layerwire_pb2 as messages
from layerwire.wire.dtypes import DTYPE_NAMES

PACKAGE = "/layerwire.v1."
_REFUSED = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
_ASK_SECONDS = 2.0  # that one health check may take before the next is tried


class Output(NamedTuple):
    """dtype, by torch's name, and shape of an output."""

    dtype: str
    shape: tuple[int, ...]


class Estimate(NamedTuple):
    """What a call would cost: outputs, bytes, and floating-point operations, a multiply and an add counted as two."""

    outputs: tuple[Output, ...]
    input_bytes: int
    output_bytes: int
    floating_point_operations: int


async def server_info(engine: Engine, timeout_seconds: float | None) -> messages.GetServerInfoResponse:
    """What the server is."""
    request = messages.GetServerInfoRequest()
    answer = await ask_any(
        engine, "LayerwireService/GetServerInfo", request, messages.GetServerInfoResponse, timeout_seconds
    )
    assert isinstance(answer, messages.GetServerInfoResponse)
    return answer


async def estimate(engine: Engine, request: Request, options: Options) -> Estimate:
    """What a call would cost."""
    message = messages.EstimateRequest(**{request.family: message_without_data(request, options)})
    timeout = options.timeout if request.timeout_seconds is None else request.timeout_seconds
    answer = await ask_any(engine, "LayerwireService/Estimate", message, messages.EstimateResponse, timeout)
    outputs = tuple(Output(DTYPE_NAMES.get(one.dtype, "unknown"), tuple(one.shape)) for one in answer.outputs)
    return Estimate(outputs, answer.input_bytes, answer.output_bytes, answer.floating_point_operations)


def message_without_data(request: Request, options: Options) -> Any:
    """The family's request message without the tensors' data, for Estimate."""
    call = Call(request, options, Future())
    message: Any
    if request.family == "run":
        message = messages.RunRequest.FromString(request.operator.SerializeToString())
    else:
        message = REQUESTS[request.family](operator=request.operator)
    for name, content in call.template.signature.tensors:
        tensor = message.inputs[name] if request.family == "run" else getattr(message, name)
        if isinstance(content, str):
            tensor.name = content
        else:
            tensor.dtype = content[0]
            tensor.shape.extend(content[1])
    return message


async def wait_ready(engine: Engine, timeout_seconds: float) -> None:
    """Waits until a server says that it serves.

    Raises:
        DeadlineExceededError: none did in time; the message has the reason.
        UnauthenticatedError, PermissionDeniedError: the token won't do, and waiting doesn't mend it.
    """
    deadline = time.monotonic() + timeout_seconds
    waits = [asyncio.ensure_future(_ready(engine, connection, deadline)) for connection in engine.connections]
    try:
        reasons = []
        for first in asyncio.as_completed(waits):
            reason = await first
            if reason is None:
                return
            reasons.append(reason)
    finally:
        for wait in waits:
            wait.cancel()
    raise DeadlineExceededError(f"not ready within {timeout_seconds:g} s: {'; '.join(reasons)}")


async def _ready(engine: Engine, connection: Connection, deadline: float) -> str | None:
    """None once the server serves, or why it didn't until the deadline."""
    chance = random.Random()  # noqa: S311  # jitter keeps no secret
    reason = f"{connection.address}: no answer"
    failures = 0
    while (seconds_left := deadline - time.monotonic()) > 0:
        try:
            if await health.check(connection.channel, engine.settings.metadata, min(seconds_left, _ASK_SECONDS)):
                return None
            reason = f"{connection.address}: NOT_SERVING"
        except grpc.aio.AioRpcError as error:
            if error.code() in _REFUSED:
                raise error_of(engine, error, connection.address) from None
            if time.monotonic() < deadline or not failures:
                reason = _explanation(engine, error, connection.address)
        failures += 1
        pause = min(retry.backoff_seconds(failures, chance), 0.5)
        await asyncio.sleep(max(0.0, min(pause, deadline - time.monotonic())))
    return reason


def any_connection(engine: Engine) -> Connection:
    """One to a server that serves, as far as is known."""
    return next((one for one in engine.connections if one.available), engine.connections[0])


async def ask_any(engine: Engine, method: str, request: Message, answer: Any, timeout_seconds: float | None) -> Any:
    """As `ask`, of a server that serves."""
    return await ask(engine, any_connection(engine), method, request, answer, timeout_seconds)


async def ask(
    engine: Engine, connection: Connection, method: str, request: Message, answer: Any, timeout_seconds: float | None
) -> Any:
    """What a server answers, as a message of the class `answer`; it is asked again over broken connections.

    `method` is with its service: "StoreService/NameWeights".

    Raises:
        LayerwireError: it answered with an error, or couldn't be reached.
    """
    payload = request.SerializeToString()
    limit = engine.settings.max_message_bytes
    if len(payload) > limit:
        raise ResourceExhaustedError(
            f"{method}: the request takes {len(payload)} bytes, more than the {limit} of "
            "this client's max_message_bytes"
        )
    call: Any = connection.channel.unary_unary(PACKAGE + method)
    chance = random.Random()  # noqa: S311  # jitter keeps no secret
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    for failures in range(engine.settings.max_retries + 1):
        seconds_left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        try:
            return answer.FromString(await call(payload, metadata=engine.settings.metadata, timeout=seconds_left))
        except DecodeError:
            raise InternalError(f"{method}: {connection.address} sent what is no answer") from None
        except grpc.aio.AioRpcError as error:
            if failures == engine.settings.max_retries or not retry.may_resend(error.code(), error.details() or ""):
                raise error_of(engine, error, connection.address) from None
            await asyncio.sleep(retry.backoff_seconds(failures + 1, chance))
    raise AssertionError("the last try returns or raises")


def error_of(engine: Engine, error: grpc.aio.AioRpcError, address: str) -> LayerwireError:
    """The error that an RPC ended by."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except (DecodeError, TypeError):
                break
            return from_status(status)
    return make(error.code(), _explanation(engine, error, address))


def _explanation(engine: Engine, error: grpc.aio.AioRpcError, address: str) -> str:
    return f"{address}: {reasons.explain(error.details() or '', tls=engine.settings.credentials is not None)}"
