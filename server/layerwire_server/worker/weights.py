"""The named weights that this worker holds, by digest, as tensors on its device.

It knows the store and torch; nothing of calls or lanes. A call that holds Weights keeps them alive whatever becomes of
the name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from google.protobuf.message import DecodeError

from layerwire.codec import TensorSpec
from layerwire.errors import InvalidArgumentError, NotFoundError, ResourceExhaustedError, invalid
from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire_server import store
from layerwire_server.worker import wire

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weights:
    """A stored tensor: `host` on the CPU, where values are checked, `tensor` on the worker's device."""

    digest: str
    spec: TensorSpec
    host: torch.Tensor
    tensor: torch.Tensor


class WeightsHolder:
    """All named weights of a worker.

    Args:
        kept: where they are kept.
        upload: takes a CPU tensor to the device.
        max_bytes: most bytes of all weights together.
    """

    def __init__(self, kept: store.Store, upload: Callable[[torch.Tensor], torch.Tensor], max_bytes: int) -> None:
        self._store = kept
        self._upload = upload
        self._max_bytes = max_bytes
        self._digests: dict[str, str] = {}
        self._weights: dict[str, Weights] = {}
        self._version = 0
        self.refresh()

    @property
    def nbytes(self) -> int:
        """Bytes of all weights held."""
        return sum(weights.spec.nbytes for weights in self._weights.values())

    def refresh(self) -> None:
        """Adopts what the store has and this worker wasn't told of, as when it started meanwhile."""
        version = self._store.names_version()
        if version == self._version:
            return
        for name, digest in self._store.names().items():
            if self._digests.get(name) != digest:
                try:
                    self.adopt(name, self.load(digest))
                except store.StoreError:
                    log.exception("weights are passed over", extra={"fields": {"weights": name}})
        self._version = version

    def get(self, name: str) -> Weights:
        """The weights of a name, as of now.

        Raises:
            NotFoundError: there are none.
        """
        digest = self._digests.get(name)
        if digest is None:
            raise NotFoundError(f"no weights named {name[:200]!r}: put them with put_weights")
        return self._weights[digest]

    def keep(self, request: layerwire_pb2.PutWeightsRequest) -> Weights:
        """Checks new weights and puts them in the store; `adopt` then lets calls see them. May run on another thread.

        Raises:
            InvalidArgumentError: the name or the tensor is wrong.
            ResourceExhaustedError: there is no room for them.
            OSError: the store can't be written.
        """
        if not store.name_is_valid(request.name):
            raise invalid(
                "put_weights",
                "name",
                "must be 1 to 200 letters, digits, '.', '_', '-' or '/', not starting with '.' or '/', without '..', "
                f"got {request.name[:200]!r}",
            )
        if request.tensor.WhichOneof("content") != "data":
            raise invalid("put_weights", "tensor", "must bring its data")
        spec, data = _checked(request.tensor)
        content = request.tensor.SerializeToString(deterministic=True)
        if store.digest_of(content) not in self._weights and self.nbytes + spec.nbytes > self._max_bytes:
            raise ResourceExhaustedError(
                f"put_weights: weights of {spec.nbytes} bytes don't fit beside {self.nbytes} under the server's "
                f"--max-weights-bytes {self._max_bytes}",
                operator="put_weights",
            )
        digest = self._store.put(request.name, content)
        self._store.sweep()
        return self._weights.get(digest) or self._on_device(digest, spec, data)

    def load(self, digest: str) -> Weights:
        """Weights that the store has, on the device. May run on another thread.

        Raises:
            StoreError: the store doesn't have them, or they are damaged.
        """
        found = self._weights.get(digest)
        if found is not None:
            return found
        tensor = tensor_pb2.Tensor()
        try:
            tensor.ParseFromString(self._store.read(digest))
            spec, data = _checked(tensor)
        except (DecodeError, InvalidArgumentError) as error:
            raise store.StoreError(f"weights with digest {digest} are no tensor") from error
        return self._on_device(digest, spec, data)

    def adopt(self, name: str, weights: Weights) -> None:
        """Moves a name to weights; what no name points to any more is let go. On the loop's thread only."""
        self._weights[weights.digest] = weights
        self._digests[name] = weights.digest
        named = set(self._digests.values())
        for gone in self._weights.keys() - named:
            del self._weights[gone]

    def _on_device(self, digest: str, spec: TensorSpec, data: bytes) -> Weights:
        host = wire.to_torch(data, spec).clone()
        return Weights(digest, spec, host, self._upload(host))


def _checked(message: tensor_pb2.Tensor) -> tuple[TensorSpec, bytes]:
    spec = wire.spec_of(message, "put_weights", "tensor")
    data = message.data
    wire.check_data(data, spec, "put_weights", "tensor")
    return spec, data
