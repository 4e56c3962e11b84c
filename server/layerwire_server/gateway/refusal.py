"""How an RPC ends by an error: status, message, and details in the trailing metadata.

It doesn't know why. What rides in trailers is kept small, for clients refuse metadata above 8 kB.
"""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from layerwire.errors import CODES, LayerwireError, to_status
from layerwire_server.gateway.server_call import ServerCall
from layerwire_server.link import request_id

DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "layerwire-request-id"
_MAX_DETAILS_BYTES = 4000
_MAX_MESSAGE_CHARACTERS = 1000


class RefusedError(Exception):
    """A request ended by an error, `error`."""

    def __init__(self, error: LayerwireError | bytes) -> None:
        super().__init__()
        self.error = error


def status_of(error: LayerwireError | bytes) -> status_pb2.Status:
    """The google.rpc.Status of an error, or of its bytes."""
    if isinstance(error, LayerwireError):
        return to_status(error)
    try:
        return status_pb2.Status.FromString(error)
    except DecodeError:
        return status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message="a worker's error can't be read")


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    """The gRPC code of a status that is an error."""
    code = CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return grpc.StatusCode.UNKNOWN if code is grpc.StatusCode.OK else code


def refuse(call: ServerCall, status: status_pb2.Status, number: int) -> None:
    """Ends the RPC with this status; `number` is what the client can look for in the log."""
    message = status.message[:_MAX_MESSAGE_CHARACTERS]
    details = status.SerializeToString()
    if len(details) > _MAX_DETAILS_BYTES:
        details = status_pb2.Status(code=status.code, message=message).SerializeToString()
    trailers = ((DETAILS_KEY, details), (REQUEST_ID_KEY, request_id(number)))
    call.end(code_of(status), message, trailers)
