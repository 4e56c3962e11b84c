"""What the store refuses, as the errors that callers see: the one table between the two, as store.proto promises it.

It knows error classes; neither files nor messages.
"""

from __future__ import annotations

import grpc

from layerwire.errors import LayerwireError, make
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


def told(error: errors.StoreError, method: str, field: str = "") -> LayerwireError:
    """The error that the caller of a method sees."""
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), grpc.StatusCode.INTERNAL)
    found = make(code, f"{method}: {str(error).removeprefix(f'{method}: ')}")
    found.operator, found.field = method, field
    return found
