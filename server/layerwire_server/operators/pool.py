"""Runs batches of pools, windows that slide over planes and keep maximum, mean or power mean; and the family's table.

It knows torch's pools; nothing of the input's other axes, which it takes as planes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from layerwire.errors import invalid
from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES, ITEMSIZES, TensorSpec
from layerwire_server.operators import avg_pool_kernels, max_pool_kernels
from layerwire_server.operators.operator import FLOATS, TORCH_DTYPES, Kernel, Merge, Operator, Placement, Specs
from layerwire_server.operators.pool_adaptive import AdaptiveAvgPool, AdaptiveMaxPool
from layerwire_server.operators.pool_fractional import FractionalMaxPool
from layerwire_server.operators.spatial import PlaneOperator, Reader
from layerwire_server.operators.window import Window

_INT64 = DTYPES["int64"]
_INTEGERS = frozenset(DTYPES[name] for name in ("int8", "int16", "int32", "int64", "uint8"))
_HALVES = frozenset((DTYPES["float16"], DTYPES["bfloat16"]))

# Powers that torch rounds exactly (copy, square, square root, reciprocal), or doesn't compute. Any other goes through
# vector code whose tail rounds otherwise than its body, and which elements are tail depends on the company.
_EXACT_POWERS = frozenset((1.0, 2.0, 0.5, -1.0, math.inf, -math.inf))


@dataclass(frozen=True)
class WindowPool(PlaneOperator):
    """A pool whose windows are all alike."""

    family: ClassVar[str] = "pool"
    weight: ClassVar[float] = 100.0
    place_work: ClassVar[float] = 0.0  # of a place of the window, beside its elements

    window: Window

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes."""
        return len(self.window.kernel_size)

    def check(self, specs: Specs) -> None:
        """The input is planes, and the window fits in them."""
        self.check_input(specs[0])
        self.window.check(self, self.extents(specs[0]))

    def output_bytes_bound(self, specs: Specs) -> int:
        """Exactly the output's, with int64 indices where they are returned."""
        assert specs[0] is not None
        itemsize = ITEMSIZES[specs[0].dtype] + 8 * (len(self.outputs) - 1)
        return max(self.planes(specs[0]), 1) * math.prod(self.window.places(self.extents(specs[0]))) * itemsize

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """One an element of a window."""
        return self.planes(specs[0]) * self.window.elements(self.extents(specs[0]))

    def work(self, specs: Specs, operations: int) -> float:
        """Also that of the places, which is most of it for small windows."""
        places = self.planes(specs[0]) * math.prod(self.window.places(self.extents(specs[0])))
        return super().work(specs, operations) + places * self.place_work


@dataclass(frozen=True)
class MaxPool(WindowPool):
    """Maximum over windows. Shape: [N, C, L...] or [C, L...] -> the same with L' = window.places(L)."""

    name: ClassVar[str] = "max_pool"
    place_work: ClassVar[float] = 1800.0
    is_parallel: ClassVar[bool] = True
    dtypes: ClassVar[frozenset[int]] = FLOATS | _INTEGERS
    cuda_dtypes: ClassVar[frozenset[int] | None] = FLOATS

    return_indices: bool

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of a MaxPool message."""
        return cls(Window.read(Reader.of(cls.name, message)), message.return_indices)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The maxima, and their positions if wanted."""
        return ("output", "indices") if self.return_indices else ("output",)

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """As the table; max_pool1d without indices has a kernel of its own, for floats."""
        dtypes = super().dtypes_on(device_type)
        return dtypes & FLOATS if self._has_own_kernel else dtypes

    @property
    def _has_own_kernel(self) -> bool:
        return self.spatial_dims == 1 and not self.return_indices

    def work(self, specs: Specs, operations: int) -> float:
        """As WindowPool; the kernel of max_pool1d without indices is vectorised, but for 16-bit floats."""
        assert specs[0] is not None
        if not self._has_own_kernel:
            return super().work(specs, operations)
        return operations * self.weight * (1.0 if specs[0].dtype in _HALVES else 0.1)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.max_pool1d, 2d, 3d."""
        kernel_size, stride, padding, dilation, ceil_mode = self.window
        answer = getattr(F, self.title)(
            tensors[0], kernel_size, stride, padding, dilation, ceil_mode, self.return_indices
        )
        return tuple(answer) if self.return_indices else (answer,)

    def kernels(self) -> Mapping[str, Kernel]:
        """See Operator."""
        return max_pool_kernels.kernels(self.window, self.run, return_indices=self.return_indices)


@dataclass(frozen=True)
class AvgPool(WindowPool):
    """Mean over windows. Shape: [N, C, L...] or [C, L...] -> the same with L' = window.places(L)."""

    name: ClassVar[str] = "avg_pool"
    place_work: ClassVar[float] = 400.0
    is_parallel: ClassVar[bool] = True
    dtypes: ClassVar[frozenset[int]] = FLOATS | {_INT64}
    cuda_dtypes: ClassVar[frozenset[int] | None] = FLOATS

    count_include_pad: bool
    divisor_override: int | None

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of an AvgPool message."""
        reader = Reader.of(cls.name, message)
        window = Window.read(reader)
        divisor = message.divisor_override if message.HasField("divisor_override") else None
        if divisor is not None and reader.dims == 1:
            raise invalid(reader.title, "divisor_override", f"is for 2-d and 3-d only, got {divisor}")
        if divisor == 0:
            raise invalid(reader.title, "divisor_override", "must not be 0")
        # Without padding, or with a divisor of one's own, the flag says nothing: equal meaning is to be an equal value.
        unused = divisor is not None or not any(window.padding)
        counted = unused or not message.HasField("count_include_pad") or message.count_include_pad
        return cls(window, counted, divisor)

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """As the table, less what the 3-d mean lacks on the CPU."""
        return _mean_dtypes(super().dtypes_on(device_type), self.spatial_dims, device_type)

    def check(self, specs: Specs) -> None:
        """Beyond the window: the 3-d kernel takes no window larger than the unpadded input."""
        super().check(specs)
        assert specs[0] is not None
        if specs[0].dtype == _INT64 and self.divisor_override == -1:  # -2**63 / -1 traps: torch dies of SIGFPE
            raise self.invalid("divisor_override", "must not be -1 for int64 input")
        if self.spatial_dims == 3:
            _check_within_input(self, specs)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.avg_pool1d, 2d, 3d."""
        kernel_size, stride, padding, _, ceil_mode = self.window
        divisor = () if self.spatial_dims == 1 else (self.divisor_override,)
        function = getattr(F, self.title)
        return (function(tensors[0], kernel_size, stride, padding, ceil_mode, self.count_include_pad, *divisor),)

    def kernels(self) -> Mapping[str, Kernel]:
        """See Operator."""
        return avg_pool_kernels.kernels(self.window, self.divisor_override, self.run)


@dataclass(frozen=True)
class LpPool(WindowPool):
    """Power mean over windows, (sum x^p)^(1/p). Shape: [N, C, L...] or [C, L...] -> the same, L' = window.places(L).

    Floats only: for integers torch computes with a truncated mean if p is an int, and otherwise if it is a float.
    """

    name: ClassVar[str] = "lp_pool"

    norm_type: float

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of an LpPool message."""
        reader = Reader.of(cls.name, message)
        norm_type = message.norm_type
        if math.isnan(norm_type) or norm_type == 0:
            raise invalid(reader.title, "norm_type", f"must not be 0 or NaN, got {norm_type}")
        return cls(Window.read(reader), norm_type)

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """As the table, less what the 3-d mean lacks on the CPU; infinite powers are maxima."""
        dtypes = super().dtypes_on(device_type)
        return dtypes if math.isinf(self.norm_type) else _mean_dtypes(dtypes, self.spatial_dims, device_type)

    def check(self, specs: Specs) -> None:
        """As AvgPool's, which computes it; and the dtype holds the powers, which torch converts to it."""
        super().check(specs)
        assert specs[0] is not None
        if math.isinf(self.norm_type):
            return
        most = torch.finfo(TORCH_DTYPES[specs[0].dtype]).max
        if not 1 / most <= abs(self.norm_type) <= most:
            rule = f"must be from {1 / most:.4g} to {most:.4g} in size for {DTYPE_NAMES[specs[0].dtype]}"
            raise self.invalid("norm_type", f"{rule}, got {self.norm_type}")
        if self.spatial_dims == 3:
            _check_within_input(self, specs)

    def placement(self, specs: Specs) -> Placement:
        """Alone where rounding would depend on the company."""
        if self.norm_type in _EXACT_POWERS:
            return super().placement(specs)
        return Placement(Merge.ALONE, self)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """A power for each element and output besides the sums."""
        assert specs[0] is not None
        return super().operations(specs, outputs) + math.prod(specs[0].shape) + 4 * math.prod(outputs[0].shape)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.lp_pool1d, 2d, 3d."""
        kernel_size, stride, *_, ceil_mode = self.window
        size = kernel_size if self.spatial_dims > 1 else kernel_size[0]  # lp_pool1d multiplies by it
        return (getattr(F, self.title)(tensors[0], self.norm_type, size, stride, ceil_mode),)


def _mean_dtypes(dtypes: frozenset[int], spatial_dims: int, device_type: str) -> frozenset[int]:
    return dtypes - _HALVES if spatial_dims == 3 and device_type == "cpu" else dtypes


def _check_within_input(operator: WindowPool, specs: Specs) -> None:
    extents, kernel_size = operator.extents(specs[0]), operator.window.kernel_size
    if any(kernel > extent for kernel, extent in zip(kernel_size, extents, strict=True)):
        raise operator.invalid("kernel_size", f"must be at most the input's {list(extents)}, got {list(kernel_size)}")


OPERATORS: tuple[type[Operator], ...] = (
    MaxPool,
    AvgPool,
    AdaptiveMaxPool,
    AdaptiveAvgPool,
    LpPool,
    FractionalMaxPool,
)
