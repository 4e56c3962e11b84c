"""What a server of the Open Inference Protocol tells of itself and its models.

It knows the protocol's messages; neither channels nor load. The messages can't be loaded beside tritonclient's, so it
is imported only where the protocol is spoken.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from layerwire.inference_v2 import open_inference_pb2 as messages
from layerwire_bench.servers.rpc import ServerConnection
from layerwire_bench.targets.inference import DATATYPES

_SERVICE = "/inference.GRPCInferenceService/"


class ModelTensor(NamedTuple):
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
    inputs: tuple[ModelTensor, ...]
    outputs: tuple[ModelTensor, ...]


def model(server: ServerConnection, name: str, version: str) -> Model:
    """A model; raises as `ServerConnection.ask`, NotFoundError among others."""
    answer = ask(server, "ModelMetadata", name=name, version=version)
    inputs, outputs = (tuple(_tensor(one) for one in tensors) for tensors in (answer.inputs, answer.outputs))
    return Model(answer.name, tuple(answer.versions), answer.platform, inputs, outputs)


def ask(server: ServerConnection, method: str, **fields: Any) -> Any:
    """What a method of the protocol answers to a request of these fields; raises as `ServerConnection.ask`."""
    request, answer = getattr(messages, f"{method}Request"), getattr(messages, f"{method}Response")
    return server.ask(_SERVICE + method, request(**fields), answer)


def _tensor(one: Any) -> ModelTensor:
    dtype, _ = DATATYPES.get(one.datatype, (None, ""))
    return ModelTensor(one.name, one.datatype, dtype, tuple(one.shape))
