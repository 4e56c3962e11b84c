"""Products with weights by oneDNN, which wants them in blocks of its own and then is faster than BLAS.

It knows tensors; nothing of messages, batches or which way is best where.

Weights are put in blocks once and the blocks kept for as long as the weights themselves are, so that every call of them
goes by the same blocks and rounds alike.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from layerwire_server.operators.operator import Kernel

_ROWS = 16  # that the blocks are made for: they serve others as well, and one form is enough
_MOST_BYTES = 256 * 1024**2  # of all blocks; beyond, they are made anew for each call


class Blocks:
    """Weights in oneDNN's blocks, by the weights that they were made of; for any thread.

    Attributes:
        nbytes: of all.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: Any = WeakTensorKeyDictionary()  # weights -> theirs; gone when the weights are

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """The weights in blocks."""
        with self._lock:
            blocks: torch.Tensor | None = self._blocks.get(weight)
        if blocks is None:
            blocks = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)  # noqa: SLF001  # what inductor calls
            with self._lock:
                if self.nbytes + weight.nbytes <= _MOST_BYTES:
                    self._blocks[weight] = blocks
        return blocks

    @property
    def nbytes(self) -> int:
        """Bytes of all weights that are there in blocks."""
        return sum(weight.nbytes for weight in self._blocks)


_BLOCKS = Blocks()


def kernels(eager: Kernel) -> Mapping[str, Kernel]:
    """Ways to `eager`, a product of a batch [rows, in_features] with weights, by name; they round otherwise."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return {}

    def onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        if x.dtype is not torch.float32 or x.dim() != 2 or weight.dim() != 2 or not x.numel() or not weight.numel():
            return eager(x, weight, bias)
        return (torch.ops.mkldnn._linear_pointwise(x, _BLOCKS.of(weight), bias, "none", [], ""),)  # noqa: SLF001

    return {"onednn": onednn}
