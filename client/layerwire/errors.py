"""The errors of Layerwire, the same classes at both ends, and the one table between them and gRPC statuses.

It knows neither channels nor servers. The tree, each with its gRPC status code:

    LayerwireError                      any of these, or a code without a class of its own
    +-- InvalidArgumentError            INVALID_ARGUMENT     also a ValueError
    +-- NotFoundError                   NOT_FOUND            also a LookupError
    +-- ResourceExhaustedError          RESOURCE_EXHAUSTED   retry_after_seconds says when to come back, if at all
    +-- DeadlineExceededError           DEADLINE_EXCEEDED    also a TimeoutError
    +-- UnavailableError                UNAVAILABLE          also a ConnectionError
    +-- CallCancelledError              CANCELLED
    +-- UnimplementedError              UNIMPLEMENTED        also a NotImplementedError
    +-- UnauthenticatedError            UNAUTHENTICATED      also a PermissionError
    +-- PermissionDeniedError           PERMISSION_DENIED    also a PermissionError
    +-- InternalError                   INTERNAL             error_id stands in the server's log
    +-- DataLossError                   DATA_LOSS            a file in the store isn't what was put there
    +-- FailedPreconditionError         FAILED_PRECONDITION  the store doesn't allow it as it is now
    +-- ClientStateError                FAILED_PRECONDITION  also a RuntimeError; raised by clients, never by servers
        +-- ClientClosedError           FAILED_PRECONDITION
"""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2

_DOMAIN = "layerwire"
CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class LayerwireError(Exception):
    """Root of all errors that a call can end with.

    Attributes:
        code: the gRPC status code.
        operator: the operator the call asked for, such as "max_pool2d"; "" where none was reached.
        field: the argument that is wrong, such as "kernel_size"; "" where it is none in particular.
        message: what is wrong, in one sentence.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        operator: str = "",
        field: str = "",
        code: grpc.StatusCode | None = None,
        retry_after_seconds: float | None = None,
        error_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operator = operator
        self.field = field
        self.retry_after_seconds = retry_after_seconds
        self.error_id = error_id
        if code is not None:
            self.code = code


class InvalidArgumentError(LayerwireError, ValueError):
    """An argument is wrong; `field` names it. Sending the call again gives the same."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFoundError(LayerwireError, LookupError):
    """There are no weights, program, version or file of that name."""

    code = grpc.StatusCode.NOT_FOUND


class ResourceExhaustedError(LayerwireError):
    """The queue is full (`retry_after_seconds` is set), or a limit is exceeded for good (it is None)."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceededError(LayerwireError, TimeoutError):
    """The call's time was up before its answer was there."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class UnavailableError(LayerwireError, ConnectionError):
    """The server can't be reached, or has no worker."""

    code = grpc.StatusCode.UNAVAILABLE


class CallCancelledError(LayerwireError):
    """The call was given up."""

    code = grpc.StatusCode.CANCELLED


class UnimplementedError(LayerwireError, NotImplementedError):
    """The server doesn't know the method; it is older than the client, or not Layerwire."""

    code = grpc.StatusCode.UNIMPLEMENTED


class UnauthenticatedError(LayerwireError, PermissionError):
    """The token is missing or wrong."""

    code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDeniedError(LayerwireError, PermissionError):
    """The token doesn't allow this."""

    code = grpc.StatusCode.PERMISSION_DENIED


class InternalError(LayerwireError):
    """Not foreseen; `error_id` stands in the server's log beside the cause."""

    code = grpc.StatusCode.INTERNAL


class DataLossError(LayerwireError):
    """A file in the store isn't what was put there; putting it again mends it."""

    code = grpc.StatusCode.DATA_LOSS


class FailedPreconditionError(LayerwireError):
    """The store is read-only, has that version already, or what is to be deleted is in use."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ClientStateError(LayerwireError, RuntimeError):
    """The client can't be used here: it is of another event loop, would wait for itself, or didn't survive a fork.

    Not CANCELLED or UNAVAILABLE, for trying again is no use before the program is changed.
    """

    code = grpc.StatusCode.FAILED_PRECONDITION


class ClientClosedError(ClientStateError):
    """The client was closed before the call was made. Calls that were waiting then end with CallCancelledError."""


_CLASSES: dict[grpc.StatusCode, type[LayerwireError]] = {
    error.code: error
    for error in (
        InvalidArgumentError,
        NotFoundError,
        ResourceExhaustedError,
        DeadlineExceededError,
        UnavailableError,
        CallCancelledError,
        UnimplementedError,
        UnauthenticatedError,
        PermissionDeniedError,
        InternalError,
        DataLossError,
        FailedPreconditionError,
    )
}


def invalid(operator: str, field: str, rule: str) -> InvalidArgumentError:
    """The error of a wrong argument, worded as all are: `max_pool2d: kernel_size must be positive, got [0, 2]`."""
    return InvalidArgumentError(f"{operator}: {field} {rule}", operator=operator, field=field)


def make(code: grpc.StatusCode, message: str) -> LayerwireError:
    """The error of a bare status code and message."""
    return _CLASSES.get(code, LayerwireError)(message, code=code)


def to_status(error: LayerwireError) -> status_pb2.Status:
    """The error as google.rpc.Status, for an Answer or the trailing metadata of a unary call."""
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        status.details.add().Pack(retry)
    if error.operator or error.error_id:
        context = {"operator": error.operator, "error_id": error.error_id}
        info = error_details_pb2.ErrorInfo(
            reason=error.code.name, domain=_DOMAIN, metadata={key: value for key, value in context.items() if value}
        )
        status.details.add().Pack(info)
    return status


def from_status(status: status_pb2.Status) -> LayerwireError:
    """The error that a google.rpc.Status tells of; details that can't be read are passed over."""
    error = make(CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message)
    bad_request, retry, info = (
        error_details_pb2.BadRequest(),
        error_details_pb2.RetryInfo(),
        error_details_pb2.ErrorInfo(),
    )
    for detail in status.details:
        if detail.Is(bad_request.DESCRIPTOR) and detail.Unpack(bad_request) and bad_request.field_violations:
            error.field = bad_request.field_violations[0].field
        elif detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            error.retry_after_seconds = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            error.operator = info.metadata.get("operator", "")
            error.error_id = info.metadata.get("error_id", "")
    return error
