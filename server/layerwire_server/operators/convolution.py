"""What convolutions share: input, weight and bias that go together, and what CPU kernels write beside the output.

It knows shapes and torch's choice of kernels; nothing of where weights come from.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from layerwire.codec import DTYPES, ITEMSIZES, TensorSpec
from layerwire.errors import invalid
from layerwire_server.operators.agreement import check_dtypes, check_shape
from layerwire_server.operators.operator import FLOATS, Input, Merge, Placement, Specs
from layerwire_server.operators.spatial import Reader, Sizes, SpatialOperator

# Kernels step over padding and over the gaps of a dilated kernel without counting them as work.
MAX_PADDING = 2**16
MAX_DILATION = 2**16

_FLOAT32 = DTYPES["float32"]
_NATIVE_ELEMENTS = 20480  # use_mkldnn in ATen/native/Convolution.cpp: single samples up to this leave oneDNN


@dataclass(frozen=True)
class Convolution(SpatialOperator):
    """What both convolutions share: a kernel over [N, C, L...] or [C, L...], its weight and bias one for a batch."""

    family: ClassVar[str] = "convolve"
    weight: ClassVar[float] = 2.0
    emulated_weight: ClassVar[float] = 40.0
    inputs: ClassVar[tuple[Input, ...]] = (
        Input("input"),
        Input("weight", shared=True),
        Input("bias", required=False, shared=True),
    )
    cuda_dtypes: ClassVar[frozenset[int] | None] = FLOATS
    tile_rows: ClassVar[int | None] = 1

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
