"""What convolutions share: input, weight and bias that go together, and what CPU kernels write beside the output.

It knows shapes and torch's choice of kernels; nothing of where weights come from.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from layerwire.errors import invalid
from layerwire.wire.dtypes import DTYPES, ITEMSIZES, TensorSpec
from layerwire_server.operators.checks import check_dtypes, check_shape
from layerwire_server.operators.operator import EMULATED, FLOATS, Input, Merge, Placement, Specs
from layerwire_server.operators.spatial import Reader, Sizes, SpatialOperator

# Kernels step over padding and over the gaps of a dilated kernel without counting them as work.
MAX_PADDING = 2**16
MAX_DILATION = 2**16

_FLOAT32, _FLOAT64 = DTYPES["float32"], DTYPES["float64"]
_FLOAT16, _BFLOAT16 = DTYPES["float16"], DTYPES["bfloat16"]
_HALF_PRODUCTS = 0.45  # what an operation on 16-bit floats costs beside one on float32 where the CPU has them
_NATIVE_ELEMENTS = 20480  # use_mkldnn in ATen/native/Convolution.cpp: single samples up to this leave oneDNN


@dataclass(frozen=True)
class Convolution(SpatialOperator):
    """What both convolutions share: a kernel over [N, C, L...] or [C, L...], its weight and bias one for a batch."""

    family: ClassVar[str] = "convolve"
    weight: ClassVar[float] = 2.0
    halves_weight: ClassVar[float] = 80.0  # of 16-bit floats where the CPU emulates them
    integers_weight: ClassVar[float] = 5.0
    column_work: ClassVar[tuple[float, ...]] = (60.0, 60.0, 500.0)  # of an element of the columns in 1-d, 2-d, 3-d
    halves_column_work: ClassVar[float] = 0.0
    narrow_weight: ClassVar[tuple[float, ...]] = (6.0, 6.0, 6.0)  # more for oneDNN with a channel a group, 1-d to 3-d
    inputs: ClassVar[tuple[Input, ...]] = (
        Input("input"),
        Input("weight", shared=True),
        Input("bias", required=False, shared=True),
    )
    cuda_dtypes: ClassVar[frozenset[int] | None] = FLOATS
    tile_rows: ClassVar[int | None] = 1
    kernels_are_exact: ClassVar[bool] = False
    is_parallel: ClassVar[bool] = True

    stride: Sizes
    dilation: Sizes
    groups: int

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes."""
        return len(self.stride)

    def check(self, specs: Specs) -> None:
        """Dtypes agree, input, weight and bias go together, and the kernel fits."""
        spec, weight, bias = specs
        self.check_input(spec)
        check_dtypes(self, specs)
        assert spec is not None
        assert weight is not None
        dims = self.spatial_dims
        if len(weight.shape) != dims + 2 or 0 in weight.shape:
            raise self.invalid("weight", f"must have {dims + 2} axes, none of them empty, got {list(weight.shape)}")
        self.check_channels(spec.shape[-dims - 1], weight)
        check_shape(self, "bias", bias, (self.channels_out(weight),))
        self.check_kernel(self.extents(spec), weight.shape[2:])

    def placement(self, specs: Specs) -> Placement:
        """By samples; an unbatched input is one."""
        spec = specs[0]
        assert spec is not None
        if 0 in spec.shape:  # nothing to compute, and oneDNN takes no part of it
            return Placement(Merge.ALONE, self)
        return Placement(Merge.ROWS, self, axes=len(spec.shape) - self.spatial_dims - 1)

    def output_bytes_bound(self, specs: Specs) -> int:
        """The output's, and those of the columns (im2col) that CPU kernels write beside it."""
        spec, weight, _ = specs
        assert spec is not None
        assert weight is not None
        samples = spec.shape[0] if len(spec.shape) == self.spatial_dims + 2 else 1
        elements = max(samples, 1) * self.channels_out(weight)
        elements *= math.prod(self.full_sizes(self.extents(spec), weight.shape[2:]))
        return elements * ITEMSIZES[spec.dtype] + self.scratch_bytes(spec, weight, max(samples, 1))

    def scratch_bytes(self, spec: TensorSpec, weight: TensorSpec, samples: int) -> int:
        """Bytes of columns: of all samples where oneDNN isn't used, of one where it is for more than one."""
        extents = self.extents(spec)
        columns = self.columns(extents, weight) * ITEMSIZES[spec.dtype]
        if spec.dtype != _FLOAT32:
            return columns * samples
        return columns if spec.shape[-self.spatial_dims - 1] * math.prod(extents) <= _NATIVE_ELEMENTS else 0

    def work(self, specs: Specs, operations: int) -> float:
        """By dtype; and that of the columns where oneDNN isn't used, all there is to a depthwise convolution."""
        spec, weight, _ = specs
        assert spec is not None
        assert weight is not None
        halves = spec.dtype in (_FLOAT16, _BFLOAT16)
        if spec.dtype == _FLOAT32 or (halves and spec.dtype not in EMULATED):
            pairs = max(weight.shape[0] * weight.shape[1] // self.groups, 1)  # of channels in a group
            narrow = self.narrow_weight[self.spatial_dims - 1] / pairs
            return operations * (self.weight * (_HALF_PRODUCTS if halves else 1.0) + narrow)
        columns = self.column_elements(spec, weight)
        if halves:
            return operations * self.halves_weight + columns * self.halves_column_work
        rate = self.weight if spec.dtype == _FLOAT64 else self.integers_weight
        return operations * rate + columns * self.column_work[self.spatial_dims - 1]

    def column_elements(self, spec: TensorSpec, weight: TensorSpec) -> int:
        """Elements of the columns of all samples and groups; a kernel of one element needs none."""
        if math.prod(weight.shape[2:]) == 1:
            return 0
        samples = spec.shape[0] if len(spec.shape) == self.spatial_dims + 2 else 1
        return samples * self.groups * self.columns(self.extents(spec), weight)

    @abstractmethod
    def channels_out(self, weight: TensorSpec) -> int:
        """Channels of the output."""

    @abstractmethod
    def check_channels(self, channels: int, weight: TensorSpec) -> None:
        """Checks the weight against the input's channels and groups; raises InvalidArgumentError."""

    @abstractmethod
    def check_kernel(self, extents: Sizes, kernel: Sizes) -> None:
        """Checks that the kernel fits and gives an output; raises InvalidArgumentError."""

    @abstractmethod
    def full_sizes(self, extents: Sizes, kernel: Sizes) -> Sizes:
        """Extents of the output before anything is cut off."""

    @abstractmethod
    def columns(self, extents: Sizes, weight: TensorSpec) -> int:
        """Elements of the columns of one sample."""


def read_groups(reader: Reader) -> int:
    """The groups in a message.

    Raises:
        InvalidArgumentError: they are not positive.
    """
    groups: int = reader.message.groups if reader.message.HasField("groups") else 1
    if groups < 1:
        raise invalid(reader.title, "groups", f"must be positive, got {groups}")
    return groups
