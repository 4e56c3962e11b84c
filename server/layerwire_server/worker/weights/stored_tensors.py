"""Stored tensors as CPU tensors: files of the store mapped into memory, so that workers share what the system caches.

It knows the store, safetensors files and torch; nothing of names, devices or calls. It blocks on the disk.
"""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Sequence

import torch

from layerwire.errors import NotFoundError
from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire.wire.safetensors import TensorEntry
from layerwire_server.operators.operator import TORCH_DTYPES
from layerwire_server.programs.graph import StoredTensor
from layerwire_server.storage import safetensors
from layerwire_server.storage.store import Store

_ALIGNED_BYTES = 64  # kernels are faster on, and MKL rounds alike from, addresses of whole cache lines
_HEADERS = 256


class StoredTensors:
    """The tensors of a store's files.

    Args:
        store: where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._headers: OrderedDict[str, dict[str, TensorEntry]] = OrderedDict()

    def header(self, digest: str) -> dict[str, TensorEntry]:
        """The tensors of a file by key.

        Raises:
            StoreError: it isn't there, or damaged.
        """
        header = self._headers.get(digest)
        if header is None:
            with self._store.open_weights(digest, check=False) as file:
                header = safetensors.read_header(file)
            self._headers[digest] = header
            if len(self._headers) > _HEADERS:
                self._headers.popitem(last=False)
        return header

    def spec(self, tensor: StoredTensor) -> TensorSpec:
        """A tensor's dtype and shape.

        Raises:
            StoreError: its file isn't there, or damaged.
            NotFoundError: the file has no such key.
        """
        entry = self._entry(tensor)
        return TensorSpec(DTYPES[entry.dtype], entry.shape)

    def read(self, tensors: Sequence[StoredTensor]) -> list[torch.Tensor]:
        """Tensors, never to be written to.

        Raises:
            StoreError: a file isn't there, or damaged.
            NotFoundError: a file has no such key.
        """
        files: dict[str, mmap.mmap] = {}
        for digest in dict.fromkeys(tensor.digest for tensor in tensors):
            with self._store.open_weights(digest) as file:
                files[digest] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return [self._tensor(files[tensor.digest], self._entry(tensor)) for tensor in tensors]

    def _entry(self, tensor: StoredTensor) -> TensorEntry:
        entry = self.header(tensor.digest).get(tensor.key)
        if entry is None:
            raise NotFoundError(f"weights {tensor.digest} have no tensor {tensor.key[:200]!r}")
        return entry

    @staticmethod
    def _tensor(content: mmap.mmap, entry: TensorEntry) -> torch.Tensor:
        dtype = TORCH_DTYPES[DTYPES[entry.dtype]]
        if entry.begin == entry.end:
            return torch.empty(entry.shape, dtype=dtype)
        count = (entry.end - entry.begin) // dtype.itemsize
        if entry.begin % dtype.itemsize == 0:
            tensor = torch.frombuffer(content, dtype=dtype, count=count, offset=entry.begin).view(entry.shape)
            return tensor if tensor.data_ptr() % _ALIGNED_BYTES == 0 else tensor.clone()
        data = bytearray(content[entry.begin : entry.end])
        return torch.frombuffer(data, dtype=dtype).view(entry.shape).clone()
