"""Errors of the server's own: a call over a limit, and what the store refuses as the errors that callers see.

It doesn't know the limits, nor files; the statuses of the store's errors are those that store.proto promises.
"""

from __future__ import annotations

import grpc

from layerwire.errors import InvalidArgumentError, LayerwireError, make
from layerwire_server.storage import errors

_CODES: dict[type[errors.StoreError], grpc.StatusCode] = {
    errors.InvalidNameError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.HeaderError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.DigestError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.MissingError: grpc.StatusCode.NOT_FOUND,
    errors.ConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ReadOnlyError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.BusyError: grpc.StatusCode.UNAVAILABLE,
    errors.StoreFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DamagedError: grpc.StatusCode.DATA_LOSS,
}


class OverLimitError(InvalidArgumentError):
    """A call or message is larger than any may be: sent again, it is refused again, whatever is waiting.

    Args:
        reason: what it has too much of, as in metrics.REJECTIONS.
        subject: the operator or method, "max_pool2d" or "stream".
        field: the argument that is to blame.
        rule: what is wrong with it.
    """

    def __init__(self, reason: str, subject: str, field: str, rule: str) -> None:
        super().__init__(f"{subject}: {field} {rule}", operator=subject, field=field)
        self.reason = reason


def caller_error(error: errors.StoreError, method: str, field: str = "") -> LayerwireError:
    """The error that the caller of a method sees where the store has refused."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)
    answer = make(code, f"{method}: {str(error).removeprefix(f'{method}: ')}")
    answer.operator, answer.field = method, field
    return answer
