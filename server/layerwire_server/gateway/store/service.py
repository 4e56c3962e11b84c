"""StoreService: which of its methods is served by what. Files are the gateway's, names and programs a worker's.

It knows the methods; nothing of files, names or frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import grpc

from layerwire.v1 import store_pb2
from layerwire_server.gateway.rpc import Services, WorkerRpc
from layerwire_server.gateway.store.download import DownloadRpc
from layerwire_server.gateway.store.upload import UploadRpcs
from layerwire_server.link import Family
from layerwire_server.storage import Store, Uploads

SERVICE_NAME: str = store_pb2.DESCRIPTOR.services_by_name["StoreService"].full_name


class StoreMethod(NamedTuple):
    """A method that a worker does: the family of its frames, and whether names are others after it."""

    family: Family
    changes: bool


FORWARDED = {
    "NameWeights": StoreMethod(Family.NAME_WEIGHTS, changes=True),
    "ListWeights": StoreMethod(Family.LIST_WEIGHTS, changes=False),
    "DeleteWeights": StoreMethod(Family.DELETE_WEIGHTS, changes=True),
    "PutProgram": StoreMethod(Family.PUT_PROGRAM, changes=True),
    "ListPrograms": StoreMethod(Family.LIST_PROGRAMS, changes=False),
    "GetProgram": StoreMethod(Family.GET_PROGRAM, changes=False),
    "SetDefaultVersion": StoreMethod(Family.SET_DEFAULT_VERSION, changes=True),
    "DeleteProgram": StoreMethod(Family.DELETE_PROGRAM, changes=True),
}


def methods(
    services: Services, store: Store, names_changed: Callable[[], Awaitable[None]]
) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Handlers of all methods; `names_changed` is awaited before a client learns that names are others now."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, (family, changes) in FORWARDED.items():
        rpc = WorkerRpc(name, family, services, names_changed if changes else None)
        handlers[name] = grpc.unary_unary_rpc_method_handler(rpc.handle)
    uploads = UploadRpcs(services, Uploads(store))
    handlers["GetUpload"] = grpc.unary_unary_rpc_method_handler(uploads.get_upload)
    handlers["Upload"] = grpc.stream_unary_rpc_method_handler(uploads.upload)
    handlers["GetWeights"] = grpc.unary_stream_rpc_method_handler(DownloadRpc(services, store).get_weights)
    return handlers
