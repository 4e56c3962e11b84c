"""gRPC reflection, v1 and v1alpha, from one servicer: their messages are the same on the wire.

It knows no service but by name.
"""

from __future__ import annotations

import grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def handlers(services: tuple[str, ...]) -> list[grpc.GenericRpcHandler]:
    """Handlers that tell of these services, and of reflection itself."""
    servicer = aio.ReflectionServicer((*services, NAMES[1]))  # the Python package has no descriptor of v1 to tell of
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return [grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in NAMES]
