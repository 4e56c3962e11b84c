"""Products with weights by oneDNN, which keeps weights in blocks of its own and then is faster than BLAS.

It knows tensors; nothing of messages, batches or which way is best where.

The only entry to it lies below torch.nn.functional, and is the one exception of that rule (tests/test_source_rules.py):
it is what torch's own compiler calls. It checks little: a bias with strides is read past its end, weights of three axes
give rubbish, without columns it raises. So everything is checked here, in Python, and what it isn't made for goes by
eager. Where torch has no such entry there is no such kernel.

Blocks take as much memory as the weights. They are made once, by the first product that wants them, only of weights
that stay on the device (`attach_blocks`), and only where the memory for weights has room; weights that come with a call
are given to oneDNN as they are.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch

from layerwire_server.operators.operator import Kernel

try:
    _PRODUCT: Any = torch.ops.mkldnn._linear_pointwise.default  # noqa: SLF001  # torch has it under no other name
    _BLOCKS: Any = torch.ops.mkldnn._reorder_linear_weight.default  # noqa: SLF001
    _IS_THERE = torch.backends.mkldnn.is_available()
except (AttributeError, RuntimeError):  # another torch, or a build without oneDNN
    _IS_THERE = False

_ROWS = 16  # that blocks are made for: they serve others as well, and one form is enough
_LEAST_ROWS = 32  # of a product: with fewer it is faster alone, and no faster between a server's other work
_MOST_ELEMENTS = 2**31  # of an input or output: beyond, offsets may be counted in 32 bits
_OUT_FEATURES, _IN_FEATURES = 64, 32  # weights are filled up to multiples of these, at most
_NAME = "layerwire_blocks"  # of weights' attribute


class NoRoomError(Exception):
    """Blocks don't fit beside the weights."""


class BlocksMemory:
    """Memory for the blocks of a device's weights; for any thread.

    Attributes:
        nbytes: of all blocks.

    Args:
        room: bytes for weights that nothing takes now.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self.nbytes = 0
        self._room = room
        self._lock = threading.RLock()  # blocks may be collected while it is held
        self._owners: weakref.WeakSet[_Blocks] = weakref.WeakSet()

    def take(self, nbytes: int) -> None:
        """Takes bytes; raises NoRoomError if there aren't so many."""
        with self._lock:
            if nbytes > self._room():
                raise NoRoomError(f"no room under --max-weights-bytes for {nbytes} bytes of weights in oneDNN's blocks")
            self.nbytes += nbytes

    def give_back(self, nbytes: int) -> None:
        """Gives bytes back."""
        with self._lock:
            self.nbytes -= nbytes

    def add(self, owner: _Blocks) -> None:
        """Knows of somebody who may take bytes."""
        with self._lock:
            self._owners.add(owner)

    def drop_all(self) -> None:
        """Frees all blocks."""
        with self._lock:
            owners = list(self._owners)
        for owner in owners:
            owner.drop()


class _Blocks:
    """The blocks of one tensor of weights."""

    def __init__(self, memory: BlocksMemory) -> None:
        self._memory = memory
        self._lock = threading.RLock()
        self._tensor: torch.Tensor | None = None
        self._nbytes = 0
        memory.add(self)

    def of(self, weight: torch.Tensor) -> torch.Tensor:
        """The blocks; raises NoRoomError."""
        blocks = self._tensor
        return self._make(weight) if blocks is None else blocks

    def _make(self, weight: torch.Tensor) -> torch.Tensor:
        rows, columns = weight.shape
        nbytes = (rows + -rows % _OUT_FEATURES) * (columns + -columns % _IN_FEATURES) * weight.itemsize
        self._memory.take(nbytes)
        try:
            blocks: torch.Tensor = _BLOCKS(weight, _ROWS)
        except BaseException:
            self._memory.give_back(nbytes)
            raise
        with self._lock:
            former, self._tensor, self._nbytes = self._nbytes, blocks, nbytes
        self._memory.give_back(former)  # another thread's, if that was faster
        return blocks

    def drop(self) -> None:
        """Frees them, but for products that run now."""
        with self._lock:
            nbytes, self._nbytes, self._tensor = self._nbytes, 0, None
        self._memory.give_back(nbytes)

    def __del__(self) -> None:
        self.drop()


def attach_blocks(weight: torch.Tensor, memory: BlocksMemory) -> None:
    """Lets products keep blocks of weights that stay on their device, for as long as they live or until dropped."""
    if _IS_THERE and _are_weights(weight) and not has_blocks(weight):
        vars(weight)[_NAME] = _Blocks(memory)


def has_blocks(tensor: torch.Tensor) -> bool:
    """Whether they are such weights."""
    return _NAME in vars(tensor)


def drop_blocks(weight: torch.Tensor) -> None:
    """Frees what products keep of these weights."""
    blocks: _Blocks | None = vars(weight).get(_NAME)
    if blocks is not None:
        blocks.drop()


def kernels(eager: Kernel) -> Mapping[str, Kernel]:
    """Ways to `eager`, a product with weights, by name; they round otherwise."""
    if not _IS_THERE:
        return {}

    def onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        blocks: _Blocks | None = vars(weight).get(_NAME)
        if (
            (blocks is None and not _are_weights(weight))
            or not _is_input(x, weight)
            or (bias is not None and not _is_bias(bias, weight))
        ):
            return eager(x, weight, bias)
        return (_PRODUCT(x, weight if blocks is None else blocks.of(weight), bias, "none", [], ""),)

    return {"onednn": onednn}


def _are_weights(tensor: torch.Tensor) -> bool:
    """Whether oneDNN may have them as weights."""
    return _is_plain(tensor) and tensor.dim() == 2 and 0 < tensor.numel() < _MOST_ELEMENTS


def _is_input(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether oneDNN may have it as input of a product with what are weights."""
    out_features, in_features = weight.shape
    if not _is_plain(x) or x.dim() < 2 or x.shape[-1] != in_features:
        return False
    size = x.numel()
    if size < _LEAST_ROWS * in_features:
        return False
    return size < _MOST_ELEMENTS and size // in_features * out_features < _MOST_ELEMENTS


def _is_bias(bias: torch.Tensor, weight: torch.Tensor) -> bool:
    return _is_plain(bias) and bias.shape == weight.shape[:1]


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is float32 in the CPU's memory, one element after another, and no gradient is asked for."""
    return (
        type(tensor) is torch.Tensor
        and tensor.dtype is torch.float32
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and not tensor.requires_grad
    )
