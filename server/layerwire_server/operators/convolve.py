"""Convolution, and the family's table.

It knows torch's convolution; nothing of where weights come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from layerwire.errors import invalid
from layerwire.v1 import operators_pb2
from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire_server.operators.convolution import MAX_DILATION, MAX_PADDING, Convolution, read_groups
from layerwire_server.operators.convolve_tbc import ConvTbc
from layerwire_server.operators.convolve_transpose import ConvTranspose
from layerwire_server.operators.operator import FLOATS, Operator, Specs
from layerwire_server.operators.sliding_blocks import Fold, Unfold
from layerwire_server.operators.spatial import MAX_STRIDE, Reader, Sizes

_INT64 = DTYPES["int64"]
_INTEGERS = frozenset(DTYPES[name] for name in ("int8", "int16", "int32", "int64", "uint8"))


@dataclass(frozen=True)
class Conv(Convolution):
    """Cross-correlation. `padding` None is "same": as much as keeps the extents.

    Shape: [N, C, L...] with weight [C', C / groups, K...] -> [N, C', L'...],
    L' = (L + 2 padding - dilation (K - 1) - 1) / stride + 1.
    """

    name: ClassVar[str] = "conv"
    dtypes: ClassVar[frozenset[int]] = FLOATS | _INTEGERS

    padding: Sizes | None

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of a Conv message."""
        reader = Reader.of(cls.name, message)
        stride = reader.sizes("stride", least=1, most=MAX_STRIDE, default=1)
        dilation = reader.sizes("dilation", least=1, most=MAX_DILATION, default=1)
        return cls(stride, dilation, read_groups(reader), _read_padding(reader, stride))

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """As the table; dilated kernels take no integers but int64."""
        dtypes = super().dtypes_on(device_type)
        return dtypes if max(self.dilation) == 1 else dtypes & (FLOATS | {_INT64})

    def channels_out(self, weight: TensorSpec) -> int:
        """Channels of the output."""
        return weight.shape[0]

    def check_channels(self, channels: int, weight: TensorSpec) -> None:
        """The weight has C / groups channels, and groups divide C'."""
        if weight.shape[1] * self.groups != channels:
            rule = f"must give input's {channels} channels as groups {self.groups} times weight's {weight.shape[1]}"
            raise self.invalid("weight" if channels % self.groups == 0 else "groups", rule)
        if weight.shape[0] % self.groups:
            raise self.invalid("groups", f"must divide weight's {weight.shape[0]} output channels, got {self.groups}")

    def check_kernel(self, extents: Sizes, kernel: Sizes) -> None:
        """The dilated kernel lies within the padded input."""
        for extent, size, dilation, padding in zip(extents, kernel, self.dilation, self._padding(kernel), strict=True):
            span = dilation * (size - 1) + 1
            if self.padding is None and padding > MAX_PADDING:
                rule = f'must give padding "same" at most {MAX_PADDING} elements a side, got {padding}'
                raise self.invalid("dilation", rule)
            if self.padding is not None and span > extent + 2 * padding:
                field = "weight" if dilation == 1 or size > extent + 2 * padding else "dilation"
                rule = f"must leave the kernel within {extent + 2 * padding} elements, got {span}"
                raise self.invalid(field, rule)

    def full_sizes(self, extents: Sizes, kernel: Sizes) -> Sizes:
        """Extents of the output."""
        if self.padding is None:
            return extents
        axes = zip(extents, kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((e + 2 * p - d * (k - 1) - 1) // s + 1 for e, k, s, p, d in axes)

    def columns(self, extents: Sizes, weight: TensorSpec) -> int:
        """A kernel's worth of input for every output, of one group at a time."""
        return math.prod(weight.shape[1:]) * math.prod(self.full_sizes(extents, weight.shape[2:]))

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """A multiply and an add for each weight of an output's kernel."""
        assert specs[1] is not None
        return 2 * math.prod(outputs[0].shape) * math.prod(specs[1].shape[1:])

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.conv1d, 2d, 3d."""
        planes, weight, bias = tensors
        assert planes is not None
        assert weight is not None
        padding = self.padding
        if padding is None:
            padding = self._padding(tuple(weight.shape[2:]))
            totals = [d * (k - 1) for d, k in zip(self.dilation, weight.shape[2:], strict=True)]
            if any(total % 2 for total in totals):  # an odd total has its extra element at the end, as torch has it
                planes = F.pad(planes, [end for total in reversed(totals) for end in (0, total % 2)])
        function = getattr(F, self.title)
        return (function(planes, weight, bias, self.stride, padding, self.dilation, self.groups),)

    def _padding(self, kernel: Sizes) -> Sizes:
        if self.padding is not None:
            return self.padding
        return tuple(dilation * (size - 1) // 2 for dilation, size in zip(self.dilation, kernel, strict=True))


def _read_padding(reader: Reader, stride: Sizes) -> Sizes | None:
    """Numbers, of which "valid" is zeros, or None for "same"."""
    name, numbers = reader.message.named_padding, reader.message.padding
    if name == operators_pb2.NAMED_PADDING_UNSPECIFIED:
        return reader.sizes("padding", least=0, most=MAX_PADDING, default=0)
    if numbers:
        raise invalid(reader.title, "padding", f"must be left out where named_padding is given, got {list(numbers)}")
    if name == operators_pb2.NAMED_PADDING_VALID:
        return (0,) * reader.dims
    if name != operators_pb2.NAMED_PADDING_SAME:
        raise invalid(reader.title, "named_padding", f"must be VALID or SAME, got {name}")
    if max(stride) > 1:
        raise invalid(reader.title, "stride", f'must be 1 for padding "same", got {list(stride)}')
    return None


OPERATORS: tuple[type[Operator], ...] = (Conv, ConvTranspose, ConvTbc, Unfold, Fold)
