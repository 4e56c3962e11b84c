"""Pooling to a given output size: windows that divide the input, and their maximum or mean.

It knows torch's adaptive pools; nothing of the input's other axes, which it takes as planes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators import avg_pool_kernels
from layerwire_server.operators.operator import Kernel, Merge, Placement, Specs
from layerwire_server.operators.spatial import PlaneOperator, Reader, Sizes

_SPLIT_ELEMENTS = 32768  # at::internal::GRAIN_SIZE: from there torch sums a lone plane in parts, one a thread


@dataclass(frozen=True)
class AdaptivePool(PlaneOperator):
    """A pool to an output size; -1 keeps the input's extent."""

    family: ClassVar[str] = "pool"
    weight: ClassVar[float] = 150.0
    is_parallel: ClassVar[bool] = True

    output_size: Sizes

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes."""
        return len(self.output_size)

    def sizes(self, extents: Sizes) -> Sizes:
        """The output's extents for the input's."""
        return tuple(e if size == -1 else size for size, e in zip(self.output_size, extents, strict=True))

    def placement(self, specs: Specs) -> Placement:
        """By rows, with the output size spelled out."""
        placement = super().placement(specs)
        return placement._replace(operator=replace(self, output_size=self.sizes(self.extents(specs[0]))))

    def output_bytes_bound(self, specs: Specs) -> int:
        """Exactly the output's, with int64 indices where they are returned."""
        assert specs[0] is not None
        itemsize = ITEMSIZES[specs[0].dtype] + 8 * (len(self.outputs) - 1)
        return max(self.planes(specs[0]), 1) * math.prod(self.sizes(self.extents(specs[0]))) * itemsize

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """One an element of a window. Windows along an axis overlap by one element wherever they don't divide it."""
        extents = self.extents(specs[0])
        windows = [
            extent + size - math.gcd(extent, size) if size else 0
            for extent, size in zip(extents, self.sizes(extents), strict=True)
        ]
        return self.planes(specs[0]) * math.prod(windows)


@dataclass(frozen=True)
class AdaptiveMaxPool(AdaptivePool):
    """Maximum over windows that divide the input. Shape: [N, C, L...] or [C, L...] -> the same, L' = output_size."""

    name: ClassVar[str] = "adaptive_max_pool"

    return_indices: bool

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of an AdaptiveMaxPool message."""
        return cls(Reader.of(cls.name, message).sizes("output_size", least=-1), message.return_indices)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The maxima, and their positions if wanted."""
        return ("output", "indices") if self.return_indices else ("output",)

    def check(self, specs: Specs) -> None:
        """The input is planes; unbatched, there may be none of them."""
        self.check_input(specs[0], empty=(0,))

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.adaptive_max_pool1d, 2d, 3d."""
        sizes = self.sizes(_shape(tensors)[-self.spatial_dims :])
        answer = getattr(F, self.title)(tensors[0], sizes, self.return_indices)
        return tuple(answer) if self.return_indices else (answer,)


@dataclass(frozen=True)
class AdaptiveAvgPool(AdaptivePool):
    """Mean over windows that divide the input. Shape: [N, C, L...] or [C, L...] -> the same, L' = output_size."""

    name: ClassVar[str] = "adaptive_avg_pool"
    global_weight: ClassVar[float] = 15.0  # torch sums whole planes by another kernel

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of an AdaptiveAvgPool message."""
        return cls(Reader.of(cls.name, message).sizes("output_size", least=-1))

    def check(self, specs: Specs) -> None:
        """The input is planes; in 1-d and 2-d, or unbatched, there may be none of them."""
        self.check_input(specs[0], empty=(0, 1) if self._channels_may_be_none(specs[0]) else (0,))

    def placement(self, specs: Specs) -> Placement:
        """Alone where a lone plane's sum would be split by threads, which changes its last bits."""
        placement = super().placement(specs)
        lone = self.planes(specs[0]) == 1 and math.prod(self.extents(specs[0])) >= _SPLIT_ELEMENTS
        return placement._replace(merge=Merge.ALONE) if lone else placement

    def work(self, specs: Specs, operations: int) -> float:
        """See Operator."""
        if math.prod(self.sizes(self.extents(specs[0]))) == 1:
            return operations * self.global_weight
        return super().work(specs, operations)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.adaptive_avg_pool1d, 2d, 3d."""
        return (getattr(F, self.title)(tensors[0], self.sizes(_shape(tensors)[-self.spatial_dims :])),)

    def kernels(self) -> Mapping[str, Kernel]:
        """See Operator."""
        return avg_pool_kernels.adaptive_kernels(self.output_size, self.run)

    def _channels_may_be_none(self, spec: TensorSpec | None) -> bool:
        assert spec is not None
        return self.spatial_dims < 3 and len(spec.shape) == self.spatial_dims + 2


def _shape(tensors: tuple[torch.Tensor | None, ...]) -> Sizes:
    assert tensors[0] is not None
    return tuple(tensors[0].shape)
