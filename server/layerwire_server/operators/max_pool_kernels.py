"""Max pools by other ways than torch's kernel, which looks at one element at a time: the same bits, and sooner.

They know tensors and windows; nothing of messages, batches or which way is best where.

A window's maximum is that of its rows' maxima, and those of all windows are a few vectorised `maximum` of whole planes.
What torch's kernel answers is not only the maximum, though: of zeros of both signs it keeps the first, of NaN the last
with its payload. Blocks in which that could be told apart are left to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from layerwire_server.operators.blocks import every, in_blocks
from layerwire_server.operators.operator import Kernel
from layerwire_server.operators.window import Window

_MOST_MAXIMA = 64  # of whole planes; larger windows are rare
_SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def kernels(window: Window, eager: Kernel, *, return_indices: bool) -> Mapping[str, Kernel]:
    """Ways to `eager`, a max pool of a batch [rows, L...], by name."""
    ways: dict[str, Kernel] = {}
    dims = len(window.kernel_size)
    if return_indices and _halves_planes(window):
        ways["comparison"] = lambda tensor: in_blocks(tensor, 2, _maxima_and_positions, eager, _is_plain)
    if return_indices and dims == 2:  # the 3-d kernel keeps other NaN
        ways["channels_last"] = lambda tensor: _channels_last(tensor, eager)
    if not return_indices and sum(window.kernel_size) <= _MOST_MAXIMA:
        ways["rows_first"] = lambda tensor: in_blocks(
            tensor, dims, lambda block: (separable_maximum(block, window),), eager, _is_plain
        )
    return ways


def separable_maximum(tensor: torch.Tensor, window: Window) -> torch.Tensor:
    """Maxima over windows, one axis after the other, for any strides; zeros of both signs count as equal.

    Shape: [..., L...] -> [..., window.places(L)].
    """
    dims = len(window.kernel_size)
    places = window.places(tuple(tensor.shape[-dims:]))
    for index in range(dims):
        kernel_size, stride, padding, dilation = (sizes[index] for sizes in window[:4])
        tensor = _along(tensor, index - dims, kernel_size, stride, padding, dilation, places[index])
    return tensor


def _along(
    tensor: torch.Tensor, axis: int, kernel_size: int, stride: int, padding: int, dilation: int, places: int
) -> torch.Tensor:
    """Maxima over windows of one axis."""
    extent = tensor.shape[axis]
    whole: list[torch.Tensor] = []  # for each place of the window an element, as a view
    parts: list[tuple[int, torch.Tensor]] = []  # the same where some windows have it in the padding
    for index in range(kernel_size):
        offset = index * dilation - padding
        first = max(0, -(offset // stride))
        end = min(places, (extent - 1 - offset) // stride + 1)
        if first >= end:
            continue
        view = every(tensor, axis, first * stride + offset, end - first, stride)
        if (first, end) == (0, places):
            whole.append(view)
        else:
            parts.append((first, view))
    if not whole:
        shape = list(tensor.shape)
        shape[axis] = places
        whole.append(tensor.new_full(shape, _least(tensor.dtype)))
    maxima = torch.maximum(*whole[:2]) if len(whole) > 1 else whole[0].clone() if parts else whole[0]
    for view in whole[2:]:
        torch.maximum(maxima, view, out=maxima)
    for first, view in parts:
        target = maxima.narrow(axis, first, view.shape[axis])
        torch.maximum(target, view, out=target)
    return maxima


def _least(dtype: torch.dtype) -> float:
    return -math.inf if dtype.is_floating_point else torch.iinfo(dtype).min


def _is_plain(block: torch.Tensor, maxima: torch.Tensor) -> bool:
    """Whether no maximum is NaN, and no element is a zero with a sign: then equal elements have equal bits."""
    if not block.dtype.is_floating_point:
        return True
    if math.isnan(maxima.sum().item()):  # also of infinities of both signs, which are as rare
        return False
    bits = _SIGNED[block.element_size()]
    return int(block.view(bits).amin().item()) != torch.iinfo(bits).min


def _halves_planes(window: Window) -> bool:
    return window == Window((2, 2), (2, 2), (0, 0), (1, 1), ceil_mode=False)


def _maxima_and_positions(planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maxima of 2x2 windows and their positions, the first of equal ones in the order of rows.

    Rows and columns are pulled apart once: torch compares only neighbours in memory many at a time, and `where` one by
    one, for which there is arithmetic here. Shape: [rows, H, W] -> [rows, H // 2, W // 2] twice.
    """
    height, width = planes.shape[1] // 2, planes.shape[2] // 2
    top, bottom = (every(planes, 1, start, height, 2)[:, :, : 2 * width].contiguous() for start in (0, 1))
    pairs = torch.gt(bottom, top).view(torch.int16)  # a byte each: those of a window are one number
    is_left_low, is_right_low = pairs.bitwise_and(1), pairs.bitwise_right_shift(8)
    maxima = torch.maximum(top, bottom)
    left, right = (every(maxima, 2, start, width, 2).contiguous() for start in (0, 1))
    # The right column has it if it is larger, and if both are equal, where its element stands in the row above.
    is_right = torch.eq(right, left).logical_and_(is_left_low.gt(is_right_low)).logical_or_(torch.gt(right, left))
    is_low = is_right_low.sub_(is_left_low).mul_(is_right.to(torch.int16)).add_(is_left_low)
    indices = is_low.to(torch.int32).mul_(planes.shape[2]).add_(is_right.to(torch.int32))
    rows, columns = (torch.arange(0, 2 * count, 2, dtype=torch.int32) for count in (height, width))
    indices += rows.mul_(planes.shape[2]).view(-1, 1) + columns
    return torch.maximum(left, right), indices.to(torch.int64)


def _channels_last(tensor: torch.Tensor, eager: Kernel) -> tuple[torch.Tensor, ...]:
    """Torch's kernel for channels that lie side by side, which is vectorised over them; planes are the channels."""
    if not tensor.numel() or tensor.dtype is torch.bfloat16:  # of which NaN lose their payload
        return eager(tensor)
    planes = tensor.unsqueeze(0)
    outputs = eager(planes.contiguous(memory_format=torch.channels_last))
    return tuple(output.contiguous()[0] for output in outputs)
