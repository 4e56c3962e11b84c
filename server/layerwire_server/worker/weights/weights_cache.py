"""The device's cache of weights: one copy of each stored tensor for all lanes, the least recently used evicted first.

It knows stored tensors and programs; nothing of names, calls or lanes.

What a call refers to stays alive until the call is answered, whatever is evicted here. What products keep of weights
in blocks of their own (operators/linear_kernels.py) counts too, and goes with them. What isn't here raises
CacheMiss, which knows how to load it, so that the loop goes on while the disk is read.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch

from layerwire.errors import InternalError, LayerwireError, ResourceExhaustedError
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.errors import caller_error
from layerwire_server.operators.linear_kernels import BlocksMemory, attach_blocks, drop_blocks
from layerwire_server.programs.bind import bind
from layerwire_server.programs.graph import StoredTensor
from layerwire_server.programs.variant import Variant
from layerwire_server.storage.errors import StoreError
from layerwire_server.worker.tensors import spec_of_tensor
from layerwire_server.worker.weights.single_flight import SingleFlight
from layerwire_server.worker.weights.stored_tensors import StoredTensors

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_MAX_ENTRIES = 16384  # programs that come with calls and have no weights take none of the bytes


@dataclass(frozen=True, slots=True)
class Weights:
    """A stored tensor: `host` on the CPU, where values are checked, `device` where batches run."""

    digest: StoredTensor
    spec: TensorSpec
    host: torch.Tensor
    device: torch.Tensor


@dataclass(frozen=True, slots=True)
class ProgramWeights:
    """The weights of a program on the device, in the order of its graph's constants."""

    digest: str
    device: tuple[torch.Tensor, ...]


CachedWeights: TypeAlias = Weights | ProgramWeights


class CacheMiss(Exception):
    """What a call needs isn't in memory; `load` gets it there, once for all who wait."""

    def __init__(self, load: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.load = load


async def load_error(miss: CacheMiss) -> LayerwireError | None:
    """Loads what isn't in memory; the error if it can't be."""
    try:
        await miss.load()
    except LayerwireError as error:
        return error
    except StoreError as error:
        return caller_error(error, "store")
    except (OSError, RuntimeError) as error:
        error_id = secrets.token_hex(8)
        log.exception("weights or a program can't be brought", extra={"fields": {"error_id": error_id}})
        if isinstance(error, torch.OutOfMemoryError):
            return ResourceExhaustedError("the device has no memory for these weights")
        return InternalError(f"weights or a program can't be brought, error id {error_id}", error_id=error_id)
    return None


async def await_loaded(find: Callable[[], Value]) -> Value:
    """What `find` gives, once all that it needs is in memory.

    Raises:
        LayerwireError: something can't be loaded, or `find` raises it.
    """
    while True:
        try:
            return find()
        except CacheMiss as miss:
            error = await load_error(miss)
            if error is not None:
                raise error from None


class _Entry(NamedTuple):
    """What is kept for a tensor's or a program's sake: tensors that other entries may share, and those of its own."""

    weights: Any  # Weights of a tensor, ProgramWeights of a program: looked up for each call, so not checked again
    tensors: Mapping[StoredTensor, Weights]
    own: Sequence[torch.Tensor]

    @property
    def own_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.own)


class WeightsCache:
    """All weights on a worker's device. Its methods belong to the loop's thread; files are read on others.

    Attributes:
        evictions: how often something was evicted for want of room.

    Args:
        stored_tensors: those of the store.
        upload: takes a CPU tensor to the device.
        max_bytes: most bytes of all of them together.
    """

    def __init__(
        self, stored_tensors: StoredTensors, upload: Callable[[torch.Tensor], torch.Tensor], max_bytes: int
    ) -> None:
        self.evictions = 0
        self._tensor_bytes = 0
        self._blocks = BlocksMemory(lambda: self._max_bytes - self.nbytes)
        self._stored_tensors = stored_tensors
        self._upload = upload
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._pinned_keys: frozenset[tuple[str, str]] = frozenset()
        self._tensors: dict[StoredTensor, Weights] = {}
        self._entry_counts: dict[StoredTensor, int] = {}
        self._loads = SingleFlight()

    @property
    def nbytes(self) -> int:
        """Bytes of all of them, and of what products keep of them."""
        return self._tensor_bytes + self._blocks.nbytes

    def pin(self, keys: frozenset[tuple[str, str]]) -> None:
        """From now on these stay, and no others: (digest, key) of tensors, (digest, "") of programs."""
        self._pinned_keys = keys

    def weights(self, tensor: StoredTensor) -> Weights:
        """A tensor.

        Raises:
            CacheMiss: it isn't in memory.
        """
        entry = self._entries.get(tensor)
        if entry is None:
            raise CacheMiss(lambda: self._load(tensor, lambda: self._read_tensor(tensor)))
        self._entries.move_to_end(tensor)
        weights: Weights = entry.weights
        return weights

    def program_weights(self, digest: str, variant: Variant) -> ProgramWeights:
        """A program's weights.

        Raises:
            CacheMiss: they aren't in memory.
        """
        key = digest, "folded" if variant.is_folded else "plain"
        entry = self._entries.get(key)
        if entry is None:
            raise CacheMiss(lambda: self._load(key, lambda: self._read_program(digest, variant)))
        self._entries.move_to_end(key)
        assert isinstance(entry.weights, ProgramWeights)
        return entry.weights

    async def _load(self, key: tuple[str, str], read: Callable[[], _Entry]) -> None:
        if key in self._entries:  # it came between CacheMiss and now: counted twice it would never be evicted
            return

        async def load() -> None:
            self._insert(key, await asyncio.to_thread(read))

        await self._loads.do(key, load)

    def _read_tensor(self, tensor: StoredTensor) -> _Entry:
        weights = self._tensors.get(tensor)
        if weights is None:
            (host,) = self._stored_tensors.read([tensor])
            weights = self._weights(tensor, host)
        return _Entry(weights, {tensor: weights}, ())

    def _read_program(self, digest: str, variant: Variant) -> _Entry:
        # Looked up once: the loop may evict any of them while the others are read.
        hits = {
            tensor: weights for tensor in variant.stored_tensors if (weights := self._tensors.get(tensor)) is not None
        }
        misses = [tensor for tensor in variant.stored_tensors if tensor not in hits]
        hosts = dict(zip(misses, self._stored_tensors.read(misses), strict=True))
        hosts |= {tensor: weights.host for tensor, weights in hits.items()}
        tensors: dict[StoredTensor, Weights] = {}
        device: list[torch.Tensor] = []
        own: list[torch.Tensor] = []
        for (_, recipe), host in zip(variant.graph.constants, bind(variant, hosts), strict=True):
            if isinstance(recipe, StoredTensor):
                tensors[recipe] = hits.get(recipe) or tensors.get(recipe) or self._weights(recipe, host)
                device.append(tensors[recipe].device)
            else:
                own.append(self._to_device(host))
                device.append(own[-1])
        return _Entry(ProgramWeights(digest, tuple(device)), tensors, own)

    def _weights(self, tensor: StoredTensor, host: torch.Tensor) -> Weights:
        return Weights(tensor, spec_of_tensor(host), host, self._to_device(host))

    def _to_device(self, host: torch.Tensor) -> torch.Tensor:
        device = self._upload(host)
        attach_blocks(device, self._blocks)
        return device

    def _insert(self, key: tuple[str, str], entry: _Entry) -> None:
        """Keeps what was loaded, and evicts what then is too much.

        Raises:
            ResourceExhaustedError: it doesn't fit, even if all goes that isn't pinned.
        """
        self._entries[key] = entry
        self._tensor_bytes += entry.own_bytes
        for tensor, weights in entry.tensors.items():
            if tensor not in self._tensors:
                self._tensors[tensor] = weights
                self._tensor_bytes += weights.spec.nbytes
            self._entry_counts[tensor] = self._entry_counts.get(tensor, 0) + 1
        for other in list(self._entries):
            if self.nbytes <= self._max_bytes and len(self._entries) <= _MAX_ENTRIES:
                return
            if other != key and other not in self._pinned_keys and (other[0], "") not in self._pinned_keys:
                self._evict(other)
                self.evictions += 1
        if self.nbytes > self._max_bytes:
            self._blocks.drop_all()  # of what is pinned
        if self.nbytes > self._max_bytes:
            total_bytes = self.nbytes
            self._evict(key)
            rule = f"with what is pinned they take {total_bytes} bytes, over the server's --max-weights-bytes"
            raise ResourceExhaustedError(f"weights don't fit: {rule} {self._max_bytes}")

    def _evict(self, key: tuple[str, str]) -> None:
        entry = self._entries.pop(key)
        self._tensor_bytes -= entry.own_bytes
        for own in entry.own:
            drop_blocks(own)
        for tensor in entry.tensors:
            self._entry_counts[tensor] -= 1
            if not self._entry_counts[tensor]:
                del self._entry_counts[tensor]
                weights = self._tensors.pop(tensor)
                self._tensor_bytes -= weights.spec.nbytes
                drop_blocks(weights.device)
