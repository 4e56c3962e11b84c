"""The activations that look along an axis: glu and the kinds of softmax.

It knows the axis and the kernels; nothing of the activations that treat each element by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch.nn import functional as F

from layerwire.errors import invalid
from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES, ITEMSIZES, TensorSpec
from layerwire_server.operators import counter_random
from layerwire_server.operators.checks import check_axis
from layerwire_server.operators.operator import (
    BOOL,
    FLOATS,
    INTEGERS,
    TORCH_DTYPES,
    Merge,
    Operator,
    Placement,
    Specs,
    dtype_names,
)
from layerwire_server.operators.scalars import POSITIVE, read, scalar

_FLOAT32 = DTYPES["float32"]
_ROW_WORK = 10_000


@dataclass(frozen=True)
class AlongAxis(Operator):
    """The function in torch.nn.functional of its name, along `dim`.

    The axes before `dim` are rows. In a batch they are folded into one, and `dim` is -1 where it is the last axis and 1
    where others follow: softmax along the last axis of [8, 10] and of [2, 3, 10] are one operator.
    """

    family = "activate"
    element_operations: ClassVar[int] = 15
    dim: int | None = None

    def axis(self, axes: int) -> int:
        """`dim`, or where there is none torch's choice of it for an input of so many axes."""
        if self.dim is not None:
            return self.dim
        return 0 if axes in (0, 1, 3) else 1

    def check(self, specs: Specs) -> None:
        """See Operator."""
        assert specs[0] is not None
        check_axis(self, self.axis(len(specs[0].shape)), specs[0])

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        assert specs[0] is not None
        axes = len(specs[0].shape)
        if axes == 0:
            return Placement(Merge.ALONE, self)
        axis = self.axis(axes) % axes
        return Placement(Merge.ROWS, replace(self, dim=-1 if axis == axes - 1 else 1), axis)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return math.prod(outputs[0].shape) * self.element_operations

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        assert tensors[0] is not None
        return (getattr(F, self.name)(tensors[0], dim=self.axis(tensors[0].dim())),)


@dataclass(frozen=True)
class InDtype(AlongAxis):
    """What the kinds of softmax have beside an axis: the dtype that the input is cast to, None for its own."""

    dtype: int | None = None

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        dtype = message.dtype or None
        if dtype is not None and dtype not in FLOATS:
            name = DTYPE_NAMES.get(dtype, dtype)
            raise invalid(cls.name, "dtype", f"must be one of {dtype_names(FLOATS)}, got {name}")
        return cls(message.dim if message.HasField("dim") else None, dtype)

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """All but for what has no kernel without a cast; see Operator."""
        return super().dtypes_on(device_type) if self.dtype is None else FLOATS | INTEGERS | BOOL

    def output_bytes_bound(self, specs: Specs) -> int:
        """Exactly the output's."""
        assert specs[0] is not None
        return math.prod(specs[0].shape) * ITEMSIZES[self.dtype or specs[0].dtype]

    def work(self, specs: Specs, operations: int) -> float:
        """Also that of the rows along the last axis, 0.1 us each but for float32."""
        assert specs[0] is not None
        shape = specs[0].shape
        last = bool(shape) and self.axis(len(shape)) % len(shape) == len(shape) - 1
        rows = math.prod(shape[:-1]) if last and (self.dtype or specs[0].dtype) != _FLOAT32 else 0
        return super().work(specs, operations) + rows * _ROW_WORK

    def placement(self, specs: Specs) -> Placement:
        """As AlongAxis; a cast to the input's own dtype is none."""
        placement = super().placement(specs)
        assert specs[0] is not None
        assert isinstance(placement.operator, InDtype)
        if self.dtype != specs[0].dtype:
            return placement
        return placement._replace(operator=replace(placement.operator, dtype=None))

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        assert tensors[0] is not None
        dtype = None if self.dtype is None else TORCH_DTYPES[self.dtype]
        return (getattr(F, self.name)(tensors[0], dim=self.axis(tensors[0].dim()), dtype=dtype),)


class Softmax(InDtype):
    name = "softmax"

    @property
    def tile_rows(self) -> int | None:  # type: ignore[override]  # a class variable elsewhere
        """Along another than the last axis torch splits by threads in the midst of rows, and rounds accordingly."""
        return None if self.dim == -1 else 1


class Softmin(Softmax):
    name = "softmin"

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """As Softmax; torch negates before it casts, and negates no truth values."""
        return super().dtypes_on(device_type) - BOOL


class LogSoftmax(InDtype):
    name = "log_softmax"


@dataclass(frozen=True)
class Glu(AlongAxis):
    name = "glu"
    element_operations = 25
    tile_rows = 1  # torch's vector tails round otherwise, and where they lie depends on the number of rows
    dim: int = -1

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        return cls(message.dim) if message.HasField("dim") else cls()

    def check(self, specs: Specs) -> None:
        """See Operator."""
        super().check(specs)
        assert specs[0] is not None
        shape = specs[0].shape
        if not shape:
            raise self.invalid("input", "must have at least 1 axis, got a scalar")
        if shape[self.dim] % 2:
            raise self.invalid("dim", f"must be of an axis of even size, got {self.dim} for shape {list(shape)}")


@dataclass(frozen=True)
class GumbelSoftmax(AlongAxis):
    """gumbel_softmax; the noise of element i, in row-major order, is counter_random's number i of the seed.

    A hard answer is exactly one-hot, where torch's is within rounding.
    """

    name = "gumbel_softmax"
    element_operations = 120
    dim: int = -1
    tau: float = scalar(POSITIVE, 1.0)
    hard: bool = False
    seed: int = 0

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        dim = message.dim if message.HasField("dim") else -1
        return cls(dim, **read(cls, message), hard=message.hard, seed=message.seed)

    def check(self, specs: Specs) -> None:
        """See Operator."""
        super().check(specs)
        assert specs[0] is not None
        shape = specs[0].shape
        if self.hard and shape and shape[self.dim] == 0:
            raise self.invalid("hard", f"must have a maximum along dim, got {self.dim} for shape {list(shape)}")

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        return Placement(Merge.ALONE, self)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        (x,) = tensors
        assert x is not None
        noise = counter_random.gumbel(self.seed, x.numel(), x.device).to(x.dtype).view(x.shape)
        soft = ((x + noise) / self.tau).softmax(self.dim)
        if not self.hard:
            return (soft,)
        hard = torch.zeros_like(soft).scatter_(self.dim, soft.argmax(self.dim, keepdim=True), 1.0)
        # Straight through, as torch has it: the gradient is that of `soft`; what is added here is exactly 0.
        return (hard + (soft - soft.detach()) if soft.requires_grad else hard,)
