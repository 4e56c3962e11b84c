"""Products: linear and bilinear with weights, cosine_similarity of two inputs.

It knows their shapes and kernels; nothing of where weights are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch.nn import functional as F

from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators import linear_kernels
from layerwire_server.operators.checks import (
    broadcast,
    broadcast_multiple,
    check_axis,
    check_dtypes,
    check_empty,
    check_shape,
)
from layerwire_server.operators.operator import FLOATS, INTEGERS, Input, Kernel, Merge, Operator, Placement, Specs
from layerwire_server.operators.scalars import NOT_NEGATIVE, Fits, check_ranges, read, scalar

# torch's bilinear is a loop over out_features: 65 us a round on the meta device, 6 us on a CPU, however small it is.
MAX_BILINEAR_FEATURES = 2**12

_ALIGNED_ELEMENTS = 16  # 64 bytes of float32; torch's allocators align their blocks to 64 and more


@dataclass(frozen=True)
class Linear(Operator):
    """y = x W^T + b."""

    name = "linear"
    weight = 1.0
    emulated_weight = 4.0
    family = "linear"
    inputs = (Input("input"), Input("weight", shared=True), Input("bias", required=False, shared=True))
    dtypes = FLOATS | INTEGERS
    cuda_dtypes = FLOATS
    kernels_are_exact = False  # BLAS rounds by the number of its threads
    is_parallel = True
    tile_rows = 64  # BLAS picks its blocks by the number of rows, and rounds accordingly

    @classmethod
    def from_message(cls, message: Any) -> Self:  # noqa: ARG003  # it has no parameters
        """See Operator."""
        return cls()

    def check(self, specs: Specs) -> None:
        """See Operator."""
        check_dtypes(self, specs)
        x, weight, bias = specs
        assert x is not None
        assert weight is not None
        if not x.shape:
            raise self.invalid("input", "must have at least 1 axis, got a scalar")
        if len(weight.shape) not in (1, 2) or weight.shape[-1] != x.shape[-1]:
            allowed = f"[out_features, {x.shape[-1]}] or [{x.shape[-1]}]"
            raise self.invalid("weight", f"must have shape {allowed}, got {list(weight.shape)}")
        if bias is not None and len(weight.shape) == 1:
            raise self.invalid("bias", "must be left out with a weight of 1 axis")
        check_shape(self, "bias", bias, weight.shape[:-1])

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        assert specs[0] is not None
        return Placement(Merge.ROWS, self, len(specs[0].shape) - 1)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        assert specs[0] is not None
        return math.prod(outputs[0].shape) * 2 * max(specs[0].shape[-1], 1)

    def output_bytes_bound(self, specs: Specs) -> int:
        """See Operator."""
        return _product_bytes(specs[0], specs[1])

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x, weight, bias = tensors
        assert x is not None
        assert weight is not None
        return (F.linear(x, weight, bias),)

    def kernels(self) -> Mapping[str, Kernel]:
        """See Operator."""
        return linear_kernels.kernels(self.run)

    def run_tile(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x, weight, bias = tensors
        assert x is not None
        assert weight is not None
        return self.run(_align_rows(x), _align_rows(weight), bias)


@dataclass(frozen=True)
class Bilinear(Operator):
    """y = x1^T W x2 + b."""

    name = "bilinear"
    emulated_weight = 3.0
    family = "linear"
    inputs = (
        Input("input"),
        Input("input2"),
        Input("weight", shared=True),
        Input("bias", required=False, shared=True),
    )
    dtypes = FLOATS | INTEGERS
    cuda_dtypes = FLOATS
    tile_rows = 64

    @classmethod
    def from_message(cls, message: Any) -> Self:  # noqa: ARG003  # it has no parameters
        """See Operator."""
        return cls()

    def check(self, specs: Specs) -> None:
        """See Operator."""
        check_dtypes(self, specs)
        x1, x2, weight, bias = specs
        assert x1 is not None
        assert x2 is not None
        assert weight is not None
        if not x1.shape:
            raise self.invalid("input", "must have at least 1 axis, got a scalar")
        if len(x2.shape) != len(x1.shape) or x2.shape[:-1] != x1.shape[:-1]:
            shapes = f"{list(x1.shape)} and {list(x2.shape)}"
            raise self.invalid("input2", f"must have input's shape except for its last axis, got {shapes}")
        if len(weight.shape) != 3 or weight.shape[1:] != (x1.shape[-1], x2.shape[-1]):
            sizes = f"{x1.shape[-1]}, {x2.shape[-1]}"
            raise self.invalid("weight", f"must have shape [out_features, {sizes}], got {list(weight.shape)}")
        if 0 in weight.shape[1:]:
            raise self.invalid("weight", f"must have at least 1 feature of both inputs, got {list(weight.shape)}")
        if weight.shape[0] > MAX_BILINEAR_FEATURES:
            raise self.invalid(
                "weight", f"must have at most {MAX_BILINEAR_FEATURES} out_features, got {weight.shape[0]}"
            )
        check_shape(self, "bias", bias, weight.shape[:1])

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        assert specs[0] is not None
        return Placement(Merge.ROWS, self, len(specs[0].shape) - 1)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        assert specs[0] is not None
        assert specs[1] is not None
        return math.prod(outputs[0].shape) * 2 * (specs[0].shape[-1] + 1) * max(specs[1].shape[-1], 1)

    def output_bytes_bound(self, specs: Specs) -> int:
        """See Operator."""
        return _product_bytes(specs[0], specs[2])

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x1, x2, weight, bias = tensors
        assert x1 is not None
        assert x2 is not None
        assert weight is not None
        return (F.bilinear(x1, x2, weight, bias),)

    def run_tile(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x1, x2, weight, bias = tensors
        assert x1 is not None
        assert x2 is not None
        assert weight is not None
        weight = _align_rows(_align_rows(weight.transpose(1, 2)).transpose(1, 2))
        return self.run(_align_rows(x1), _align_rows(x2), weight, bias)


@dataclass(frozen=True)
class CosineSimilarity(Operator):
    """The cosine of the angle between two inputs along `dim` of the shape that both are broadcast to."""

    name = "cosine_similarity"
    family = "linear"
    inputs = (Input("input"), Input("input2"))
    tile_rows = 1  # where torch's vector tails lie depends on the number of rows, and with it the bits of NaN
    dim: int = 1
    eps: float = scalar(NOT_NEGATIVE, 1e-8, Fits.KERNEL)

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        return cls(**read(cls, message), dim=message.dim if message.HasField("dim") else 1)

    def check(self, specs: Specs) -> None:
        """See Operator."""
        check_dtypes(self, specs)
        joint = self._joint(specs)
        check_axis(self, self.dim, joint)
        check_empty(self, joint)
        check_ranges(self, joint.dtype)

    def placement(self, specs: Specs) -> Placement:
        """By the axes before `dim`, which are rows where both inputs have them all."""
        x1, x2 = specs
        assert x1 is not None
        assert x2 is not None
        axis = self.dim % max(len(x1.shape), 1)
        if not x1.shape or len(x1.shape) != len(x2.shape) or x1.shape[:axis] != x2.shape[:axis]:
            return Placement(Merge.ALONE, self)
        return Placement(Merge.ROWS, replace(self, dim=1), axis)

    def row_multiple(self, specs: Specs, multiples: Sequence[int]) -> int | None:
        """See Operator; an input without rows may be broadcast over those of the other."""
        if not any(multiples):
            return 0
        axes = len(self._joint(specs).shape)
        if axes == 0 or self.dim % axes == 0:
            return None
        return broadcast_multiple([spec.shape for spec in specs if spec is not None], multiples)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """Two norms, two quotients, products and their sum."""
        return 8 * math.prod(self._joint(specs).shape)

    def output_bytes_bound(self, specs: Specs) -> int:
        """Also that of the inputs as they are broadcast, which may be far larger than both and the output."""
        joint = self._joint(specs)
        return max(joint.nbytes, math.prod(self._output_shape(joint.shape)) * ITEMSIZES[joint.dtype])

    def footprint_bytes(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """Also the normalised inputs and their product."""
        return super().footprint_bytes(specs, outputs) + 3 * self._joint(specs).nbytes

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x1, x2 = tensors
        assert x1 is not None
        assert x2 is not None
        return (F.cosine_similarity(x1, x2, self.dim, self.eps),)

    def _joint(self, specs: Specs) -> TensorSpec:
        """What both inputs are broadcast to."""
        x1, x2 = specs
        assert x1 is not None
        assert x2 is not None
        return TensorSpec(x1.dtype, broadcast(self, "input2", x1.shape, x2.shape))

    def _output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape without the axis."""
        axis = self.dim % max(len(shape), 1)
        return shape[:axis] + shape[axis + 1 :]


def _product_bytes(x: TensorSpec | None, weight: TensorSpec | None) -> int:
    """Bytes of the output; of one row where there is none, since tiles of rows are made up all the same."""
    assert x is not None
    assert weight is not None
    rows, features = math.prod(x.shape[:-1]), weight.shape[0] if len(weight.shape) > 1 else 1
    return max(rows, 1) * features * ITEMSIZES[x.dtype]


def _align_rows(tensor: torch.Tensor) -> torch.Tensor:
    """A copy whose rows start on cache lines, filled up by zeros.

    MKL rounds by where operands lie: of equal rows in one float32 product of 64 x 17 by 17 x 10 some differ in the last
    bit, and a product differs by the address of its input. With rows of whole cache lines none of 320 shapes did.
    """
    size = tensor.shape[-1]
    copy = tensor.new_zeros((*tensor.shape[:-1], size + -size % _ALIGNED_ELEMENTS))
    copy[..., :size] = tensor
    return copy


OPERATORS: tuple[type[Operator], ...] = (Linear, Bilinear, CosineSimilarity)
