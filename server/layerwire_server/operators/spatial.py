"""Sizes along the spatial axes: read from messages, expanded to one an axis, checked in Python integers.

It knows parameter messages and shapes; nothing of what an operator computes, and no torch function.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from layerwire.errors import invalid
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.checks import check_empty
from layerwire_server.operators.operator import Merge, Operator, Placement, Specs

Sizes: TypeAlias = tuple[int, ...]

MAX_SIZE = 2**31 - 1  # torch's kernels keep sizes in C ints
MAX_STRIDE = 1024  # strides in the thousands crash torch's transposed convolution
_LAYOUTS = {1: "[C, L] or [N, C, L]", 2: "[C, H, W] or [N, C, H, W]", 3: "[C, D, H, W] or [N, C, D, H, W]"}


class Reader(NamedTuple):
    """Reads the sizes in a parameter message, for an operator of `dims` spatial axes."""

    title: str
    dims: int
    message: Any

    @classmethod
    def of(cls, name: str, message: Any, least_dims: int = 1) -> Reader:
        """The reader of an operator's message.

        Raises:
            InvalidArgumentError: naming `spatial_dims`.
        """
        dims = message.spatial_dims
        if not least_dims <= dims <= 3:
            raise invalid(name, "spatial_dims", f"must be {'1, 2' if least_dims == 1 else '2'} or 3, got {dims}")
        return cls(f"{name}{dims}d", dims, message)

    def sizes(self, field: str, least: int, most: int = MAX_SIZE, default: Sizes | int | None = None) -> Sizes:
        """A field's values, one an axis.

        Args:
            field: its name.
            least: the least that a value may be.
            most: the most that a value may be.
            default: what an empty field means; None where it must not be empty.

        Raises:
            InvalidArgumentError: there are neither one nor `dims` values, or one is out of range.
        """
        values = tuple(getattr(self.message, field))
        if not values:
            if default is None:
                raise invalid(self.title, field, "is required")
            return (default,) * self.dims if isinstance(default, int) else default
        self.check(field, values, least, most)
        return values if len(values) == self.dims else values * self.dims

    def check(self, field: str, values: Sequence[float], least: float, most: float) -> None:
        """Checks the number of values and their range.

        Raises:
            InvalidArgumentError: naming the field.
        """
        if len(values) not in (1, self.dims):
            counts = "1 value" if self.dims == 1 else f"1 or {self.dims} values"
            raise invalid(self.title, field, f"must have {counts}, got {len(values)}")
        if min(values) < least:
            rule = {0: "must not be negative", 1: "must be positive"}.get(int(least), f"must be at least {least}")
            raise invalid(self.title, field, f"{rule}, got {list(values)}")
        if max(values) > most:
            raise invalid(self.title, field, f"must be at most {most}, got {list(values)}")

    def check_each(self, field: str, values: Sizes, most: Sequence[int], words: str) -> None:
        """Checks each value against its own limit, which `words` name.

        Raises:
            InvalidArgumentError: naming the field.
        """
        if any(value > limit for value, limit in zip(values, most, strict=True)):
            raise invalid(self.title, field, f"must be at most {words} {list(most)}, got {list(values)}")


@dataclass(frozen=True)
class SpatialOperator(Operator):
    """An operator over the last one, two or three axes of [N, C, L...] or [C, L...]."""

    @property
    @abstractmethod
    def spatial_dims(self) -> int:
        """Number of spatial axes."""

    @property
    def title(self) -> str:
        """Its name in torch.nn.functional: "max_pool2d"."""
        return f"{self.name}{self.spatial_dims}d"

    def extents(self, spec: TensorSpec | None) -> Sizes:
        """Sizes of the input's spatial axes."""
        assert spec is not None
        return spec.shape[-self.spatial_dims :]

    def planes(self, spec: TensorSpec | None) -> int:
        """How many planes the input has: samples times channels."""
        assert spec is not None
        return math.prod(spec.shape[: -self.spatial_dims])

    def check_input(self, spec: TensorSpec | None, empty: Sequence[int] = ()) -> None:
        """Checks the input's rank, and that its sizes are positive; N may always be 0.

        Args:
            spec: the input's.
            empty: further axes that may be empty, counted from the front.

        Raises:
            InvalidArgumentError: naming `input`.
        """
        assert spec is not None
        dims, axes = self.spatial_dims, len(spec.shape)
        if axes not in (dims + 1, dims + 2):
            raise self.invalid("input", f"must be {_LAYOUTS[dims]}, got shape {list(spec.shape)}")
        may_be_empty = {*empty, 0} if axes == dims + 2 else set(empty)
        if any(size == 0 and axis not in may_be_empty for axis, size in enumerate(spec.shape)):
            raise self.invalid("input", f"must not be empty but for the batch axis, got shape {list(spec.shape)}")
        check_empty(self, spec)


@dataclass(frozen=True)
class PlaneOperator(SpatialOperator):
    """A spatial operator that treats every plane by itself, so that planes of all calls of a lane are rows alike."""

    def placement(self, specs: Specs) -> Placement:
        """Batch and channels fold into rows: a kernel takes [rows, L...] as one unbatched input."""
        spec = specs[0]
        assert spec is not None
        if 0 in spec.shape:  # torch takes no unbatched input of 0 channels, which 0 rows would look like
            return Placement(Merge.ALONE, self)
        return Placement(Merge.ROWS, self, axes=len(spec.shape) - self.spatial_dims)
