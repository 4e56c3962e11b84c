"""What a server of the Open Inference Protocol tells of itself and its models.

It knows the protocol's messages; neither channels nor load. The messages can't be loaded beside tritonclient's, so it
is imported only where the protocol is spoken.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from layerwire.inference_v2 import open_inference_pb2 as messages
from layerwire_bench.servers.datatypes import DATATYPES
from layerwire_bench.servers.rpc import Server

_SERVICE = "/inference.GRPCInferenceService/"


class Tensor(NamedTuple):
    """An input or output of a model.

    Attributes:
        datatype: the protocol's name, "FP32".
        dtype: torch's, "float32"; None where torch has none, as of BYTES.
        shape: with -1 along axes that take any size.
    """

    name: str
    datatype: str
    dtype: str | None
    shape: tuple[int, ...]


class Model(NamedTuple):
    """A model: its versions, all of them, what it takes and gives."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def about(server: Server) -> messages.ServerMetadataResponse:
    """Name, version and extensions; raises as `Server.ask`."""
    told: messages.ServerMetadataResponse = ask(server, "ServerMetadata")
    return told


def model(server: Server, name: str, version: str) -> Model:
    """A model; raises as `Server.ask`, NotFoundError among others."""
    told = ask(server, "ModelMetadata", name=name, version=version)
    inputs, outputs = (tuple(_tensor(one) for one in found) for found in (told.inputs, told.outputs))
    return Model(told.name, tuple(told.versions), told.platform, inputs, outputs)


def ask(server: Server, method: str, **fields: Any) -> Any:
    """What a method of the protocol answers to a request of these fields; raises as `Server.ask`."""
    request, answer = getattr(messages, f"{method}Request"), getattr(messages, f"{method}Response")
    return server.ask(_SERVICE + method, request(**fields), answer)


def _tensor(told: Any) -> Tensor:
    known = DATATYPES.get(told.datatype)
    return Tensor(told.name, told.datatype, None if known is None else known.dtype, tuple(told.shape))
