"""Transforms that take elements to other places: reshape, flatten, permute, narrow, concatenate and their like.

It knows shapes; no element of any tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch.nn import functional as F

from layerwire.errors import invalid
from layerwire_server.operators.operator import Input, Operator, Specs
from layerwire_server.operators.transform import Shape, ShapeTransform, Transform, read_axes, wrapped_axis

MAX_INPUTS = 64


@dataclass(frozen=True)
class Reshape(ShapeTransform):
    """The same elements in row-major order under another shape, where one size may be -1 for what is left."""

    name = "reshape"
    shape: Shape

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        shape = read_axes(cls, "shape", message)
        if any(size < -1 for size in shape):
            raise invalid(cls.name, "shape", f"must have no sizes below -1, got {list(shape)}")
        if shape.count(-1) > 1:
            raise invalid(cls.name, "shape", f"must have at most one -1, got {list(shape)}")
        return cls(shape)

    def shape_of(self, shape: Shape) -> Shape:
        """See ShapeTransform."""
        elements, explicit = math.prod(shape), math.prod(size for size in self.shape if size != -1)
        if -1 in self.shape and explicit == 0:
            raise self.invalid("shape", f"must have no 0 beside -1, which could be anything, got {list(self.shape)}")
        if elements % explicit if -1 in self.shape else elements != explicit:
            rule = f"must hold the {elements} elements of shape {list(shape)}, got {list(self.shape)}"
            raise self.invalid("shape", rule)
        return tuple(elements // explicit if size == -1 else size for size in self.shape)

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """A row's elements lie together, and are rows again where axis 0 is free and takes them whole."""
        if self.shape[:1] != (-1,):
            return None
        elements, entry = multiples[0] * math.prod(shapes[0][1:]), math.prod(self.shape[1:])
        return elements // entry if elements and elements % entry == 0 else None

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """torch.reshape."""
        return tensor.reshape(self.shape)


@dataclass(frozen=True)
class Flatten(ShapeTransform):
    """Axes start_dim to end_dim made one; a scalar becomes [1]."""

    name = "flatten"
    start_dim: int = 0
    end_dim: int = -1

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        return cls(
            message.start_dim if message.HasField("start_dim") else cls.start_dim,
            message.end_dim if message.HasField("end_dim") else cls.end_dim,
        )

    def shape_of(self, shape: Shape) -> Shape:
        """See ShapeTransform."""
        start, end = self._axes(shape)
        if start > end:
            rule = f"must not be before start_dim {self.start_dim} in shape {list(shape)}, got {self.end_dim}"
            raise self.invalid("end_dim", rule)
        return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """Where axis 0 takes others in, each of its entries becomes as many as they have elements."""
        start, end = self._axes(shapes[0])
        multiple = multiples[0] * (math.prod(shapes[0][1 : end + 1]) if start == 0 else 1)
        return multiple or None

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """torch.flatten."""
        return tensor.flatten(self.start_dim, self.end_dim)

    def _axes(self, shape: Shape) -> tuple[int, int]:
        shape = shape or (1,)
        start = wrapped_axis(self, "start_dim", self.start_dim, shape)
        return start, wrapped_axis(self, "end_dim", self.end_dim, shape)


@dataclass(frozen=True)
class Permute(ShapeTransform):
    """The axes in another order."""

    name = "permute"
    moved_weight = 100.0  # a view, which the next kernel reads across cache lines
    dims: Shape

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        dims = read_axes(cls, "dims", message)
        axes = len(dims)
        if sorted(dim + axes if dim < 0 else dim for dim in dims) != list(range(axes)):
            raise invalid(cls.name, "dims", f"must be every axis once, got {list(dims)}")
        return cls(tuple(dim % axes for dim in dims))

    def shape_of(self, shape: Shape) -> Shape:
        """See ShapeTransform."""
        if len(shape) != len(self.dims):
            raise self.invalid("dims", f"must be every axis of shape {list(shape)} once, got {list(self.dims)}")
        return tuple(shape[dim] for dim in self.dims)

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """Rows stay where axis 0 does."""
        return multiples[0] if self.dims[0] == 0 else None

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """torch.permute."""
        return tensor.permute(self.dims)


@dataclass(frozen=True)
class Narrow(ShapeTransform):
    """A piece along an axis."""

    name = "narrow"
    dim: int
    start: int
    length: int

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        if message.length < 0:
            raise invalid(cls.name, "length", f"must not be negative, got {message.length}")
        return cls(message.dim, message.start, message.length)

    def shape_of(self, shape: Shape) -> Shape:
        """See ShapeTransform."""
        axis = wrapped_axis(self, "dim", self.dim, shape)
        size = shape[axis]
        if not -size <= self.start <= size:
            raise self.invalid("start", f"must be from {-size} to {size} for shape {list(shape)}, got {self.start}")
        start = self.start + size if self.start < 0 else self.start
        if self.length > size - start:
            rule = f"must be at most {size - start} from start {self.start} of {size}, got {self.length}"
            raise self.invalid("length", rule)
        return (*shape[:axis], self.length, *shape[axis + 1 :])

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """Rows stay unless some are cut away."""
        return None if self.dim % len(shapes[0]) == 0 else multiples[0]

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """torch.narrow."""
        return tensor.narrow(self.dim, self.start, self.length)


@dataclass(frozen=True)
class Concatenate(Transform):
    """Inputs one behind the other along an axis; all of them are named `input`."""

    name = "concatenate"
    moved_weight = 20.0
    dim: int = 0
    count: int = 1

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator for one input; `with_inputs` makes that for several."""
        return cls(message.dim if message.HasField("dim") else cls.dim)

    def with_inputs(self, count: int) -> Self:
        """The operator for a node of so many inputs.

        Raises:
            InvalidArgumentError: there are none, or too many.
        """
        if not 1 <= count <= MAX_INPUTS:
            raise self.invalid("input", f"must be given from 1 to {MAX_INPUTS} times, got {count}")
        return replace(self, count=count)

    @property
    def inputs(self) -> tuple[Input, ...]:  # type: ignore[override]  # a class variable elsewhere
        """`count` times `input`."""
        return (Input("input"),) * self.count

    def output_shape(self, specs: Specs) -> Shape:
        """See Transform."""
        shapes = [spec.shape for spec in specs if spec is not None]
        first = shapes[0]
        axis = wrapped_axis(self, "dim", self.dim, first)
        for shape in shapes:
            if len(shape) != len(first) or any(
                one != other for at, (one, other) in enumerate(zip(first, shape, strict=True)) if at != axis
            ):
                rule = f"must agree in all sizes but those along dim {self.dim}, got {list(first)} and {list(shape)}"
                raise self.invalid("input", rule)
        return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """Rows stay where they lie side by side."""
        if self.dim % len(shapes[0]) == 0 or len(set(multiples)) > 1:
            return None
        return multiples[0]

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.cat."""
        return (torch.cat([tensor for tensor in tensors if tensor is not None], self.dim),)


@dataclass(frozen=True)
class ChannelShuffle(ShapeTransform):
    """Channels [groups, C / groups] in the order [C / groups, groups]. Shape: [N, C, L...] -> the same."""

    name = "channel_shuffle"
    groups: int

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        if message.groups < 1:
            raise invalid(cls.name, "groups", f"must be positive, got {message.groups}")
        return cls(message.groups)

    def shape_of(self, shape: Shape) -> Shape:
        """See ShapeTransform."""
        if len(shape) < 3:
            raise self.invalid("input", f"must be [N, C, L...], got shape {list(shape)}")
        if self.groups > max(shape[1], 1) or shape[1] % self.groups:
            raise self.invalid("groups", f"must divide the {shape[1]} channels, got {self.groups}")
        return shape

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """torch.nn.functional.channel_shuffle."""
        return F.channel_shuffle(tensor, self.groups)


@dataclass(frozen=True)
class Identity(ShapeTransform):
    """The input."""

    name = "identity"
    moved_weight = 0.0

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        """The input itself."""
        return tensor


class Dropout(Identity):
    """The input: dropout in evaluation, whatever its probability."""

    name = "dropout"

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        if message.HasField("p") and not 0 <= message.p <= 1:
            raise invalid(cls.name, "p", f"must be from 0 to 1, got {message.p}")
        return cls()


OPERATORS: tuple[type[Operator], ...] = (
    Reshape,
    Flatten,
    Permute,
    Narrow,
    Concatenate,
    ChannelShuffle,
    Identity,
    Dropout,
)
