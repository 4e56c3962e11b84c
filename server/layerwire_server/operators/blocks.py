"""What other kernels of pools have in common: strided views of planes, and blocks of them that fit into a cache.

It knows tensors; nothing of windows or of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from layerwire_server.operators.operator import Kernel

_BLOCK_BYTES = 1 << 21  # of input at a time: what is made of it on the way stays in a core's cache


def every(tensor: torch.Tensor, axis: int, start: int, count: int, stride: int) -> torch.Tensor:
    """Elements start, start + stride, ... of an axis, as a view."""
    strides = list(tensor.stride())
    shape = list(tensor.shape)
    offset = tensor.storage_offset() + start * strides[axis]
    strides[axis] *= stride
    shape[axis] = count
    return tensor.as_strided(shape, strides, offset)


def in_blocks(
    tensor: torch.Tensor,
    dims: int,
    way: Kernel,
    eager: Kernel,
    is_plain: Callable[[torch.Tensor, torch.Tensor], bool],
) -> tuple[torch.Tensor, ...]:
    """What a way gives block by block of planes, and `eager` for blocks whose bits it can't vouch for.

    Args:
        tensor: planes, along any number of leading axes.
        dims: axes of a plane.
        way: takes and gives planes along one leading axis.
        eager: the same, by torch's own kernel.
        is_plain: whether a way's bits are eager's, by a block and the way's first output.
    """
    if not tensor.numel():
        return eager(tensor)
    planes = tensor.reshape(-1, *tensor.shape[-dims:])
    plane_bytes = planes[0].numel() * planes.element_size()
    blocks = planes.split(max(1, _BLOCK_BYTES // plane_bytes))
    outputs: tuple[torch.Tensor, ...] = ()
    start = 0
    for block in blocks:
        pieces = way(block)
        if not is_plain(block, pieces[0]):
            pieces = eager(block)
        if len(blocks) == 1:
            outputs = pieces
            break
        if not outputs:
            outputs = tuple(piece.new_empty(planes.shape[0], *piece.shape[1:]) for piece in pieces)
        for output, piece in zip(outputs, pieces, strict=True):
            output[start : start + len(block)] = piece
        start += len(block)
    return tuple(output.view(*tensor.shape[:-dims], *output.shape[1:]) for output in outputs)
