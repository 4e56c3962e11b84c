"""StoreService: which of its methods is served by what. Files are the gateway's, names and programs a worker's.

It knows the methods; nothing of files, names or frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import grpc

from layerwire.v1 import store_pb2
from layerwire_server.gateway.rpc import Services
from layerwire_server.gateway.store.download import Downloading
from layerwire_server.gateway.store.upload import Uploading
from layerwire_server.gateway.unary import UnaryMethod
from layerwire_server.link import Family
from layerwire_server.storage import Store, Uploads

SERVICE_NAME: str = store_pb2.DESCRIPTOR.services_by_name["StoreService"].full_name


class Forwarded(NamedTuple):
    """A method that a worker does: the family of its frames, and whether names are others after it."""

    family: Family
    changes: bool


FORWARDED = {
    "NameWeights": Forwarded(Family.NAME_WEIGHTS, changes=True),
    "ListWeights": Forwarded(Family.LIST_WEIGHTS, changes=False),
    "DeleteWeights": Forwarded(Family.DELETE_WEIGHTS, changes=True),
    "PutProgram": Forwarded(Family.PUT_PROGRAM, changes=True),
    "ListPrograms": Forwarded(Family.LIST_PROGRAMS, changes=False),
    "GetProgram": Forwarded(Family.GET_PROGRAM, changes=False),
    "SetDefaultVersion": Forwarded(Family.SET_DEFAULT_VERSION, changes=True),
    "DeleteProgram": Forwarded(Family.DELETE_PROGRAM, changes=True),
}


def methods(
    services: Services, store: Store, names_changed: Callable[[bytes], Awaitable[None]]
) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Handlers of all methods; `names_changed` is awaited before a client learns that names are others now."""
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, (family, changes) in FORWARDED.items():
        special = (names_changed, "store_bytes") if changes else (None, "")
        method = UnaryMethod(
            name, family, services.router, services.admission, services.metrics, services.log, *special
        )
        found[name] = grpc.unary_unary_rpc_method_handler(method.handle)
    uploading = Uploading(services, Uploads(store))
    found["GetUpload"] = grpc.unary_unary_rpc_method_handler(uploading.get)
    found["Upload"] = grpc.stream_unary_rpc_method_handler(uploading.take)
    found["GetWeights"] = grpc.unary_stream_rpc_method_handler(Downloading(services, store).give)
    return found
