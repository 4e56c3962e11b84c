"""Transposed convolution.

It knows torch's kernels and which outputs they die of; nothing of where weights come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire_server.operators.convolution import MAX_DILATION, MAX_PADDING, Convolution, read_groups
from layerwire_server.operators.operator import FLOATS, Specs
from layerwire_server.operators.spatial import MAX_STRIDE, Reader, Sizes

# oneDNN's transposed convolution writes code for the whole width of the output, and its time for an output grows with
# the stride. With torch 2.13 it dies of SIGSEGV at 10 million elements along an axis, and takes half a microsecond an
# output with stride 1024, where torch's own float64 kernel, which oneDNN has no part in, takes 2 nanoseconds. Up to
# these it is no slower than that; beyond them float64 is used.
_ONEDNN_EXTENT = 2**17
_ONEDNN_STRIDE = 31

_ROUNDED = FLOATS - {DTYPES["float64"]}


@dataclass(frozen=True)
class ConvTranspose(Convolution):
    """Transposed convolution, the gradient of conv by its input.

    Shape: [N, C, L...] with weight [C, C' / groups, K...] -> [N, C', L'...],
    L' = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1.
    """

    name: ClassVar[str] = "conv_transpose"
    weight: ClassVar[float] = 4.0
    halves_weight: ClassVar[float] = 20.0
    column_work: ClassVar[tuple[float, ...]] = (100.0, 80.0, 60.0)
    halves_column_work: ClassVar[float] = 600.0
    narrow_weight: ClassVar[tuple[float, ...]] = (3.0, 3.0, 45.0)
    dtypes: ClassVar[frozenset[int]] = FLOATS | {DTYPES["int64"]}

    padding: Sizes
    output_padding: Sizes

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of a ConvTranspose message."""
        reader = Reader.of(cls.name, message)
        stride = reader.sizes("stride", least=1, most=MAX_STRIDE, default=1)
        dilation = reader.sizes("dilation", least=1, most=MAX_DILATION, default=1)
        padding = reader.sizes("padding", least=0, most=MAX_PADDING, default=0)
        output_padding = reader.sizes("output_padding", least=0, default=0)
        most = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
        reader.check_each("output_padding", output_padding, most, "stride - 1 or dilation - 1,")
        return cls(stride, dilation, read_groups(reader), padding, output_padding)

    def channels_out(self, weight: TensorSpec) -> int:
        """Channels of the output."""
        return weight.shape[1] * self.groups

    def check_channels(self, channels: int, weight: TensorSpec) -> None:
        """The weight has C channels, and groups divide them."""
        if weight.shape[0] != channels:
            raise self.invalid("weight", f"must have input's {channels} channels first, got {list(weight.shape)}")
        if channels % self.groups:
            raise self.invalid("groups", f"must divide input's {channels} channels, got {self.groups}")

    def check_kernel(self, extents: Sizes, kernel: Sizes) -> None:
        """Padding leaves an output."""
        for full, padding in zip(self.full_sizes(extents, kernel), self.padding, strict=True):
            if full - 2 * padding < 1:
                raise self.invalid("padding", f"must leave an output of {full} elements, got {padding}")

    def full_sizes(self, extents: Sizes, kernel: Sizes) -> Sizes:
        """Extents of the output before padding is cut off."""
        axes = zip(extents, kernel, self.stride, self.dilation, self.output_padding, strict=True)
        return tuple((e - 1) * s + d * (k - 1) + o + 1 for e, k, s, d, o in axes)

    def columns(self, extents: Sizes, weight: TensorSpec) -> int:
        """A kernel's worth of output for every input, of one group at a time."""
        return math.prod(weight.shape[1:]) * math.prod(extents)

    def scratch_bytes(self, spec: TensorSpec, weight: TensorSpec, samples: int) -> int:
        """Besides columns, all of it in float64 where oneDNN is avoided."""
        extents, kernel = self.extents(spec), weight.shape[2:]
        if spec.dtype not in _ROUNDED or not self._leaves_onednn(extents, kernel):
            return super().scratch_bytes(spec, weight, samples)
        output = self.channels_out(weight) * math.prod(self.full_sizes(extents, kernel))
        return 8 * samples * (output + self.columns(extents, weight))

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """A multiply and an add for each weight of an input's kernel, and one an output, which may be far more."""
        assert specs[0] is not None
        assert specs[1] is not None
        return 2 * math.prod(specs[0].shape) * math.prod(specs[1].shape[1:]) + math.prod(outputs[0].shape)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.conv_transpose1d, 2d, 3d."""
        planes, weight, _ = tensors
        assert planes is not None
        assert weight is not None
        extents, kernel = tuple(planes.shape[-self.spatial_dims :]), tuple(weight.shape[2:])
        rounds = planes.device.type == "cpu" and planes.is_floating_point() and planes.dtype != torch.float64
        if rounds and self._leaves_onednn(extents, kernel):
            wide = (None if tensor is None else tensor.double() for tensor in tensors)
            return (self._convolve(*wide).to(planes.dtype),)
        return (self._convolve(*tensors),)

    def _convolve(self, *tensors: torch.Tensor | None) -> torch.Tensor:
        function = getattr(F, self.title)
        output: torch.Tensor = function(
            *tensors, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )
        return output

    def _leaves_onednn(self, extents: Sizes, kernel: Sizes) -> bool:
        return max(self.stride) > _ONEDNN_STRIDE or max(self.full_sizes(extents, kernel)) > _ONEDNN_EXTENT
