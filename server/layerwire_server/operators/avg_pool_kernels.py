"""Average pools by sums of whole planes: the bits of torch's kernel, which adds up one window after the other.

They know tensors and windows; nothing of messages, batches or which way is best where.

Sums round by their order, so elements of a window are added in torch's: row by row, beginning with 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from layerwire_server.operators.blocks import every, in_blocks
from layerwire_server.operators.operator import Kernel
from layerwire_server.operators.window import Window

_MOST_SUMMANDS = 9  # beyond, torch's kernel was faster


def kernels(window: Window, divisor: int | None, eager: Kernel) -> Mapping[str, Kernel]:
    """Ways to `eager`, a mean over windows of a batch [rows, L...], by name."""
    dims, summands = len(window.kernel_size), math.prod(window.kernel_size)
    if dims > 2 or not 1 < summands <= _MOST_SUMMANDS or any(window.padding) or window.ceil_mode:
        return {}
    if divisor is not None and divisor < 0:  # which gives sums of nothing but zeros another sign
        return {}

    return {"plane_sums": lambda tensor: _means(tensor, window, (divisor or summands,), eager)}


def adaptive_kernels(output_size: Sequence[int], eager: Kernel) -> Mapping[str, Kernel]:
    """Ways to `eager`, a mean over the windows of a batch [rows, L...] that this many of cover an axis, by name."""
    dims = len(output_size)
    if dims > 2 or math.prod(output_size) <= 1:  # of whole planes torch has another kernel
        return {}

    def plane_sums(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        extents = tensor.shape[-dims:]
        sizes = tuple(extent // size for extent, size in zip(extents, output_size, strict=True))
        is_even = all(size * count == extent for size, count, extent in zip(sizes, output_size, extents, strict=True))
        if not is_even or not 1 < math.prod(sizes) <= _MOST_SUMMANDS:
            return eager(tensor)
        window = Window(sizes, sizes, (0,) * dims, (1,) * dims, ceil_mode=False)
        return _means(tensor, window, sizes, eager)  # torch divides by one size after the other

    return {"plane_sums": plane_sums}


def _means(tensor: torch.Tensor, window: Window, divisors: Sequence[int], eager: Kernel) -> tuple[torch.Tensor, ...]:
    if tensor.dtype not in (torch.float32, torch.float64):  # others are added up as another dtype
        return eager(tensor)

    def means(block: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sums = _sums(block, window).add_(0.0)  # 0 + -0 is 0, as in torch's kernel
        for divisor in divisors:
            sums.div_(divisor)
        return (sums,)

    return in_blocks(tensor, len(window.kernel_size), means, eager, _is_plain)


def _sums(block: torch.Tensor, window: Window) -> torch.Tensor:
    """Sums over windows. Shape: [rows, L...] -> [rows, window.places(L)]."""
    dims = len(window.kernel_size)
    views = [block]
    for index, places in enumerate(window.places(tuple(block.shape[1:]))):
        kernel_size, stride = window.kernel_size[index], window.stride[index]
        views = [every(view, index - dims, start, places, stride) for view in views for start in range(kernel_size)]
    sums = torch.add(views[0], views[1])
    for view in views[2:]:
        sums.add_(view)
    return sums


def _is_plain(_: torch.Tensor, means: torch.Tensor) -> bool:
    """Whether no mean is NaN: of several NaN another might be kept."""
    return not math.isnan(means.sum().item())
