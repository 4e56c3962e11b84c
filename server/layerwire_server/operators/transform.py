"""What a transform is: an operator that is there in programs only.

It knows what they have in common, shapes above all; neither programs nor which transforms there are.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias

import torch

from layerwire.errors import invalid
from layerwire.wire.dtypes import DTYPE_NAMES, ITEMSIZES, MAX_AXES, TensorSpec
from layerwire_server.operators.checks import MAX_EMPTY_SIZES, check_dtypes, check_empty
from layerwire_server.operators.operator import BOOL, FLOATS, INTEGERS, TORCH_DTYPES, Merge, Operator, Placement, Specs

Shape: TypeAlias = tuple[int, ...]

MAX_ELEMENTS = 2**48  # far over any limit on bytes, and far under where torch's own products of sizes overflow


@dataclass(frozen=True)
class Transform(Operator):
    """An operator with a place in programs and no RPC; its inputs have one dtype, and so has its one output."""

    family = "transform"
    dtypes = FLOATS | INTEGERS | BOOL
    moved_weight: ClassVar[float] = 0.0  # what moving an element of the output costs, in the unit of `weight`

    @classmethod
    def from_message(cls, message: Any) -> Self:  # noqa: ARG003  # that of one without parameters
        """See Operator."""
        return cls()

    def with_inputs(self, count: int) -> Self:
        """The operator for a node of so many inputs; itself, but for those that take any number."""
        return self

    @abstractmethod
    def output_shape(self, specs: Specs) -> Shape:
        """The output's shape, in Python integers.

        Raises:
            InvalidArgumentError: the inputs don't go with the parameters or with each other.
        """

    def check(self, specs: Specs) -> None:
        """See Operator."""
        check_dtypes(self, specs)
        for spec in specs:
            assert spec is not None
            check_empty(self, spec)
        shape = self.output_shape(specs)
        most = MAX_EMPTY_SIZES if 0 in shape else MAX_ELEMENTS
        if math.prod(filter(None, shape)) > most:
            raise self.invalid("input", f"must give sizes that multiply to at most {most}, not {list(shape)}")

    def placement(self, specs: Specs) -> Placement:
        """Alone: they are batched as parts of programs."""
        return Placement(Merge.ALONE, self)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """None: most transforms calculate nothing."""
        return 0

    def work(self, specs: Specs, operations: int) -> float:
        """As all operators, and what is moved."""
        moved = math.prod(self.output_shape(specs)) * self.moved_weight if self.moved_weight else 0.0
        return super().work(specs, operations) + moved

    def output_bytes_bound(self, specs: Specs) -> int:
        """Exactly the output's."""
        assert specs[0] is not None
        return math.prod(self.output_shape(specs)) * ITEMSIZES[specs[0].dtype]

    def row_multiple(self, specs: Specs, multiples: Sequence[int]) -> int | None:
        """See Operator."""
        if not any(multiples):
            return 0
        shapes = [spec.shape for spec in specs if spec is not None]
        if any(multiple and not shape for shape, multiple in zip(shapes, multiples, strict=True)):
            return None
        return self.rows_multiple(shapes, multiples)

    @abstractmethod
    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """`row_multiple` where some input has rows, and those that have are no scalars."""


@dataclass(frozen=True)
class ShapeTransform(Transform):
    """A transform of one input's shape."""

    moved_weight: ClassVar[float] = 20.0

    def output_shape(self, specs: Specs) -> Shape:
        """See Transform."""
        assert specs[0] is not None
        return self.shape_of(specs[0].shape)

    def shape_of(self, shape: Shape) -> Shape:
        """The output's shape for the input's: the same.

        Raises:
            InvalidArgumentError: the input doesn't go with the parameters.
        """
        return shape

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """See Transform."""
        return multiples[0]

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        assert tensors[0] is not None
        return (self.apply(tensors[0]),)

    @abstractmethod
    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The transform of a tensor; a view of it where that will do."""


def read_axes(operator: type[Operator], field: str, message: Any) -> Shape:
    """A message's field with at most one value an axis.

    Raises:
        InvalidArgumentError: it has more than a tensor has axes.
    """
    values = tuple(getattr(message, field))
    if len(values) > MAX_AXES:
        raise invalid(operator.name, field, f"must have at most {MAX_AXES} values, got {len(values)}")
    return values


def wrapped_axis(operator: Operator, field: str, dim: int, shape: Shape) -> int:
    """An axis counted from the front.

    Raises:
        InvalidArgumentError: naming `field`; there is no such axis.
    """
    axes = len(shape)
    if not -axes <= dim < axes:
        rule = f"must be from {-axes} to {axes - 1} for shape {list(shape)}" if axes else "has no axis in a scalar"
        raise operator.invalid(field, f"{rule}, got {dim}")
    return dim % axes


def check_holds(operator: Operator, field: str, value: float, dtype: int) -> None:
    """Checks that a tensor of this dtype can hold a number; those of floats hold NaN and infinities too.

    Raises:
        InvalidArgumentError: naming `field`.
    """
    torch_dtype = TORCH_DTYPES[dtype]
    if torch_dtype.is_floating_point:
        greatest = torch.finfo(torch_dtype).max
        holds, what = not math.isfinite(value) or abs(value) <= greatest, f"from {-greatest} to {greatest}"
    else:
        lowest, most = (0, 1) if dtype in BOOL else (torch.iinfo(torch_dtype).min, torch.iinfo(torch_dtype).max)
        holds, what = lowest <= value <= most and value == int(value), f"a whole number from {lowest} to {most}"
    if not holds:
        raise operator.invalid(field, f"must be {what} for {DTYPE_NAMES[dtype]} input, got {value}")
