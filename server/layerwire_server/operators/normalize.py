"""Normalisations without running statistics, and the family's part of the table.

It knows shapes and kernels; nothing of running statistics, which are normalize_running.py's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch.nn import functional as F

from layerwire.errors import invalid
from layerwire.wire.dtypes import DTYPES, MAX_AXES, TensorSpec
from layerwire_server.operators.checks import check_axis, check_dtypes, check_empty, check_mixed_dtypes, check_shape
from layerwire_server.operators.normalize_running import BatchNorm, InstanceNorm
from layerwire_server.operators.operator import FLOATS, Input, Merge, Operator, Placement, Specs
from layerwire_server.operators.scalars import FINITE, NOT_NAN, NOT_NEGATIVE, POSITIVE, Fits, check_ranges, read, scalar

_AFFINE = (Input("input"), Input("weight", required=False, shared=True), Input("bias", required=False, shared=True))
_LEAST_MAX_SIZE = 1024


@dataclass(frozen=True)
class OverLastAxes(Operator):
    """What layer_norm and rms_norm have: the axes before `normalized_shape` are rows."""

    family = "normalize"
    row_work: ClassVar[float]
    normalized_shape: tuple[int, ...]

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        count = len(message.normalized_shape)
        if not 1 <= count <= MAX_AXES:
            raise invalid(cls.name, "normalized_shape", f"must have 1 to {MAX_AXES} sizes, got {count}")
        shape = tuple(message.normalized_shape)
        if min(shape) < 0:
            raise invalid(cls.name, "normalized_shape", f"must be at least 0, got {list(shape)}")
        return cls(shape, **read(cls, message))

    def check(self, specs: Specs) -> None:
        """See Operator."""
        x = specs[0]
        assert x is not None
        shape = self.normalized_shape
        if x.shape[-len(shape) :] != shape:
            raise self.invalid("normalized_shape", f"must be input's last sizes {list(x.shape)}, got {list(shape)}")
        check_empty(self, x)
        for role, spec in zip(self.inputs[1:], specs[1:], strict=True):
            check_shape(self, role.name, spec, shape)

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        assert specs[0] is not None
        return Placement(Merge.ROWS, self, len(specs[0].shape) - len(self.normalized_shape))

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return 6 * math.prod(outputs[0].shape)

    def work(self, specs: Specs, operations: int) -> float:
        """Also that of the rows, which is most of it where they are short."""
        assert specs[0] is not None
        rows = math.prod(specs[0].shape[: -len(self.normalized_shape)])
        return super().work(specs, operations) + rows * self.row_work


@dataclass(frozen=True)
class LayerNorm(OverLastAxes):
    name = "layer_norm"
    row_work = 3000.0
    inputs = _AFFINE
    eps: float = scalar(POSITIVE, 1e-5)

    def check(self, specs: Specs) -> None:
        """See Operator."""
        check_mixed_dtypes(self, specs)
        super().check(specs)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x, weight, bias = tensors
        assert x is not None
        return (F.layer_norm(x, self.normalized_shape, weight, bias, self.eps),)


@dataclass(frozen=True)
class RmsNorm(OverLastAxes):
    name = "rms_norm"
    row_work = 500.0
    inputs = _AFFINE[:2]
    eps: float | None = scalar(NOT_NEGATIVE, None)

    def check(self, specs: Specs) -> None:
        """See Operator."""
        check_dtypes(self, specs)  # torch warns of others: they leave its fused kernel
        super().check(specs)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x, weight = tensors
        assert x is not None
        return (F.rms_norm(x, self.normalized_shape, weight, self.eps),)


@dataclass(frozen=True)
class GroupNorm(Operator):
    """group_norm; samples are rows."""

    name = "group_norm"
    family = "normalize"
    inputs = _AFFINE
    num_groups: int
    eps: float = scalar(POSITIVE, 1e-5)

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        if message.num_groups < 1:
            raise invalid(cls.name, "num_groups", f"must be at least 1, got {message.num_groups}")
        return cls(message.num_groups, **read(cls, message))

    def check(self, specs: Specs) -> None:
        """See Operator."""
        check_mixed_dtypes(self, specs)
        x, weight, bias = specs
        assert x is not None
        if len(x.shape) < 2:
            raise self.invalid("input", f"must have 2 or more axes, [N, C, ...], got shape {list(x.shape)}")
        channels = x.shape[1]
        if self.num_groups > max(channels, 1) or channels % self.num_groups:
            raise self.invalid("num_groups", f"must divide the {channels} channels, got {self.num_groups}")
        check_empty(self, x)
        if x.shape[0] * channels // self.num_groups * math.prod(x.shape[2:]) == 1:
            raise self.invalid("input", f"must have more than 1 value a group, got shape {list(x.shape)}")
        check_shape(self, "weight", weight, (channels,))
        check_shape(self, "bias", bias, (channels,))

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        return Placement(Merge.ROWS, self, 1)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return 6 * math.prod(outputs[0].shape)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x, weight, bias = tensors
        assert x is not None
        if weight is None and bias is not None and bias.requires_grad:
            weight = torch.ones_like(bias)  # torch's gradient by a bias alone fails
        return (F.group_norm(x, self.num_groups, weight, bias, self.eps),)


@dataclass(frozen=True)
class LocalResponseNorm(Operator):
    """local_response_norm; samples are rows."""

    name = "local_response_norm"
    weight = 60.0
    family = "normalize"
    dtypes = FLOATS | {DTYPES["int64"]}
    cuda_dtypes = FLOATS
    tile_rows = 1  # pow rounds otherwise in vector tails, and where they lie depends on the number of rows
    size: int
    alpha: float = scalar(FINITE, 1e-4)
    beta: float = scalar(FINITE, 0.75, Fits.INPUT)
    k: float = scalar(FINITE, 1.0)

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        if message.size < 1:
            raise invalid(cls.name, "size", f"must be at least 1, got {message.size}")
        return cls(message.size, **read(cls, message))

    def check(self, specs: Specs) -> None:
        """See Operator."""
        x = specs[0]
        assert x is not None
        if len(x.shape) < 3:
            raise self.invalid("input", f"must have 3 or more axes, [N, C, L...], got shape {list(x.shape)}")
        # Beyond 2 C every window holds all channels, and torch pads by it: 2**31 would be a memory of terabytes.
        greatest = max(2 * x.shape[1], _LEAST_MAX_SIZE)
        if self.size > greatest:
            raise self.invalid("size", f"must be at most {greatest} for {x.shape[1]} channels, got {self.size}")
        check_ranges(self, x.dtype)

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        return Placement(Merge.ROWS, self, 1)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return (self.size + 20) * math.prod(outputs[0].shape)

    def output_bytes_bound(self, specs: Specs) -> int:
        """Also that of the padded squares, which may be far larger than the output."""
        x = specs[0]
        assert x is not None
        return x.nbytes + x.nbytes // max(x.shape[1], 1) * self.size

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        (x,) = tensors
        assert x is not None
        if x.numel() == 0:
            return (x / 1,)  # torch gives x itself; this has the same dtype as an answer with elements
        # With one axis in place of several torch averages in 2-d, not 3-d: the same bits, and float16 has a kernel.
        flat = F.local_response_norm(x.flatten(2), self.size, self.alpha, self.beta, self.k)
        return (flat.view(x.shape),)


@dataclass(frozen=True)
class LpNormalize(Operator):
    """normalize; the axes before `dim` are rows."""

    name = "normalize"
    family = "normalize"
    p: float = scalar(NOT_NAN, 2.0)
    dim: int = 1
    eps: float = scalar(NOT_NEGATIVE, 1e-12, Fits.INPUT)

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        return cls(**read(cls, message), dim=message.dim if message.HasField("dim") else 1)

    def check(self, specs: Specs) -> None:
        """See Operator."""
        x = specs[0]
        assert x is not None
        check_axis(self, self.dim, x)
        check_empty(self, x)
        check_ranges(self, x.dtype)
        if (self.p < 0 or self.p == math.inf) and x.shape and x.shape[self.dim] == 0:
            rule = f"must be from 0 to below inf where the axis has no elements, got {self.p} for shape {list(x.shape)}"
            raise self.invalid("p", rule)

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        assert specs[0] is not None
        axes = len(specs[0].shape)
        if axes == 0:
            return Placement(Merge.ALONE, self)
        return Placement(Merge.ROWS, replace(self, dim=1), self.dim % axes)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return (4 if self.p in (1, 2, math.inf, -math.inf) else 60) * math.prod(outputs[0].shape)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        (x,) = tensors
        assert x is not None
        if x.numel() == 0:
            return (
                torch.empty_like(x),
            )  # torch's meta kernel refuses norms without an identity, its CPU kernel doesn't
        return (F.normalize(x, self.p, self.dim, self.eps),)


OPERATORS: tuple[type[Operator], ...] = (
    BatchNorm,
    LayerNorm,
    GroupNorm,
    InstanceNorm,
    RmsNorm,
    LocalResponseNorm,
    LpNormalize,
)
