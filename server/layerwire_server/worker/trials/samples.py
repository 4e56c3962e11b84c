"""Inputs for trials: as callers sent them, the same turned over, few of their rows, and what callers seldom send.

It knows tensors; nothing of kernels or of when there is a trial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from layerwire_server.operators.linear_kernels import has_blocks
from layerwire_server.operators.operator import WIRE_DTYPES

Inputs: TypeAlias = tuple[Any, ...]  # an operator's tensors; a program's weights are a tuple of them

_SMALL_BYTES = 1 << 20  # of inputs: larger ones are run as they came, and their unusual kin has fewer rows


def nbytes(tensors: Sequence[Any]) -> int:
    """Bytes of what is a tensor."""
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))


def copies(tensors: Sequence[Any]) -> Inputs:
    """Inputs in memory of their own; weights that stay on the device, with what kernels keep of them, as they are."""
    return tuple(tensor.clone() if _comes_with_calls(tensor) else tensor for tensor in tensors)


def random_inputs(tensors: Sequence[Any]) -> Inputs:
    """Inputs of the same shapes as callers may send: normal numbers, or small integers; weights as in `copies`."""
    return tuple(_random_like(tensor) for tensor in tensors)


def _comes_with_calls(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and not has_blocks(tensor)


def _random_like(tensor: Any) -> Any:
    if not _comes_with_calls(tensor) or tensor.dtype not in WIRE_DTYPES:
        return tensor
    generator = torch.Generator().manual_seed(0)
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    return torch.randint(0, 2, tensor.shape, generator=generator).to(tensor.dtype)


def variants(inputs: Inputs, is_shared: Sequence[bool], *, has_rows: bool) -> tuple[list[Inputs], list[Inputs]]:
    """Inputs to time kernels with, the given ones first; and others that they must agree on besides.

    Args:
        inputs: of a batch.
        is_shared: which of them are weights, and stay.
        has_rows: whether axis 0 of the others is rows, of which there may as well be fewer.
    """
    shared = [whole or not isinstance(tensor, torch.Tensor) for tensor, whole in zip(inputs, is_shared, strict=True)]
    size = nbytes([tensor for tensor, whole in zip(inputs, shared, strict=True) if not whole])
    is_small = size <= _SMALL_BYTES
    part = inputs if is_small or not has_rows else _rows(inputs, shared, _SMALL_BYTES / size)
    return [inputs, *(_mirror_images(inputs, shared) if is_small else ())], _unusual(part, shared)


def _rows(inputs: Inputs, shared: Sequence[bool], share: float) -> Inputs:
    """The first rows of a batch, about that share of it, and at least two."""
    return tuple(
        tensor if whole else tensor[: max(2, int(share * len(tensor)))]
        for tensor, whole in zip(inputs, shared, strict=True)
    )


def _mirror_images(inputs: Inputs, shared: Sequence[bool]) -> list[Inputs]:
    """The same turned over along axes: other inputs as real as the first, so that no branch predictor knows them."""
    return [
        tuple(
            tensor if whole or tensor.dim() <= axis else tensor.flip(tensor.dim() - axis)
            for tensor, whole in zip(inputs, shared, strict=True)
        )
        for axis in (1, 2)
    ]


def _unusual(inputs: Inputs, shared: Sequence[bool]) -> list[Inputs]:
    """Inputs of the same shapes with what callers seldom send: NaN, infinities, zeros of both signs, extremes."""
    generator = torch.Generator().manual_seed(0)

    def with_values(tensor: torch.Tensor, values: torch.Tensor, share: float) -> torch.Tensor:
        flat = tensor.contiguous().clone().view(-1)
        places = torch.rand(flat.shape, generator=generator) < share
        count = int(places.sum())
        flat[places] = values[torch.randint(len(values), (count,), generator=generator)]
        return flat.view(tensor.shape)

    others = []
    for kind, share in (("zeros", 0.7), ("infinities", 0.3), ("nan", 0.1)):
        others.append(
            tuple(
                tensor if whole or not tensor.numel() else with_values(tensor, _values(tensor.dtype, kind), share)
                for tensor, whole in zip(inputs, shared, strict=True)
            )
        )
    return others


def _values(dtype: torch.dtype, kind: str) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.tensor([False, True])
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        return torch.tensor([0, info.min, info.max] if kind == "infinities" else [0], dtype=dtype)
    if kind == "zeros":
        return torch.tensor([0.0, -0.0], dtype=dtype)
    if kind == "infinities":
        return torch.tensor([math.inf, -math.inf, 0.0, torch.finfo(dtype).max], dtype=dtype)
    # Of several NaN in a window it shows which one is kept, as each has a payload of its own.
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    payloads = torch.tensor([math.nan], dtype=dtype).view(bits) + torch.tensor([0, 1, 5], dtype=bits)
    return torch.cat([payloads.view(dtype), torch.tensor([-0.0, -math.inf], dtype=dtype)])
