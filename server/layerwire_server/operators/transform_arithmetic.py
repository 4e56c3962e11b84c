"""Transforms that calculate: add, subtract, multiply, divide, matmul, mean.

It knows shapes; nothing of weights, which are inputs like others here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators.checks import broadcast, broadcast_multiple
from layerwire_server.operators.operator import FLOATS, INTEGERS, Input, Operator, Specs
from layerwire_server.operators.scalars import FINITE, read, scalar
from layerwire_server.operators.transform import Shape, Transform, check_holds, read_axes, wrapped_axis


@dataclass(frozen=True)
class Arithmetic(Transform):
    """A function of two inputs, element by element, that are broadcast against each other."""

    inputs = (Input("input"), Input("other"))
    element_operations: ClassVar[int] = 1

    def output_shape(self, specs: Specs) -> Shape:
        """See Transform."""
        left, right = _shapes(specs)
        return broadcast(self, "other", left, right)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return math.prod(outputs[0].shape) * self.element_operations

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """See Transform."""
        return broadcast_multiple(shapes, multiples)


@dataclass(frozen=True)
class WithAlpha(Arithmetic):
    """What takes `other` `alpha` times."""

    element_operations = 2
    alpha: float = scalar(FINITE, 1.0)

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        return cls(**read(cls, message))

    def check(self, specs: Specs) -> None:
        """The dtype holds alpha."""
        assert specs[0] is not None
        check_holds(self, "alpha", self.alpha, specs[0].dtype)
        super().check(specs)

    def factor(self, tensor: torch.Tensor) -> float:
        """What torch takes as alpha for tensors like this: whole for integers."""
        return self.alpha if tensor.is_floating_point() else int(self.alpha)


class Add(WithAlpha):
    """input + alpha other."""

    name = "add"

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.add."""
        left, right = _both(tensors)
        return (torch.add(left, right, alpha=self.factor(left)),)


class Subtract(WithAlpha):
    """input - alpha other."""

    name = "subtract"
    dtypes = FLOATS | INTEGERS

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.sub."""
        left, right = _both(tensors)
        return (torch.sub(left, right, alpha=self.factor(left)),)


class Multiply(Arithmetic):
    """Input times other."""

    name = "multiply"

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.mul."""
        left, right = _both(tensors)
        return (torch.mul(left, right),)


class Divide(Arithmetic):
    """Input divided by other."""

    name = "divide"
    dtypes = FLOATS

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.div."""
        left, right = _both(tensors)
        return (torch.div(left, right),)


@dataclass(frozen=True)
class Matmul(Transform):
    """Matrix product. Shape: [..., M, K], [..., K, N] -> [..., M, N]; [K] stands for [1, K] and [K, 1]."""

    name = "matmul"
    weight = 1.0
    emulated_weight = 4.0
    inputs = (Input("input"), Input("other"))
    dtypes = FLOATS | INTEGERS
    cuda_dtypes = FLOATS

    def output_shape(self, specs: Specs) -> Shape:
        """See Transform."""
        left, right = _shapes(specs)
        for field, shape in (("input", left), ("other", right)):
            if not shape:
                raise self.invalid(field, "must have at least 1 axis, got a scalar")
        if left[-1] != right[-2:][0]:
            rule = f"must have {left[-1]} rows for input of shape {list(left)}, got {list(right)}"
            raise self.invalid("other", rule)
        return (*broadcast(self, "other", left[:-2], right[:-2]), *left[-2:-1], *(right[-1:] if len(right) > 1 else ()))

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return math.prod(outputs[0].shape) * 2 * max(_shapes(specs)[0][-1], 1)

    def output_bytes_bound(self, specs: Specs) -> int:
        """The output's, and those of the copies that torch makes of stacks of matrices that are broadcast in part."""
        left, right = _shapes(specs)
        assert specs[0] is not None
        stack = broadcast(self, "other", left[:-2], right[:-2])
        copied = sum(
            math.prod(stack) * math.prod(shape[-2:])
            for shape in (left, right)
            if math.prod(shape[:-2]) not in (1, math.prod(stack))
        )
        return super().output_bytes_bound(specs) + copied * ITEMSIZES[specs[0].dtype]

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """Rows are those of input as a matrix, or entries of stacks of matrices."""
        left, right = shapes
        if len(left) == 2 and len(right) <= 2 and not multiples[1]:
            return multiples[0]
        if any(multiple and len(shape) < 3 for shape, multiple in zip(shapes, multiples, strict=True)):
            return None
        return broadcast_multiple(shapes, multiples)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.matmul."""
        left, right = _both(tensors)
        return (torch.matmul(left, right),)


@dataclass(frozen=True)
class Mean(Transform):
    """Mean over axes, all of them where none are given."""

    name = "mean"
    dtypes = FLOATS
    dims: Shape = ()
    keepdim: bool = False

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        return cls(read_axes(cls, "dims", message), message.keepdim)

    def output_shape(self, specs: Specs) -> Shape:
        """See Transform."""
        assert specs[0] is not None
        shape = specs[0].shape
        reduced_axes = self._axes(shape)
        if self.keepdim:
            return tuple(1 if axis in reduced_axes else size for axis, size in enumerate(shape))
        return tuple(size for axis, size in enumerate(shape) if axis not in reduced_axes)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        assert specs[0] is not None
        return max(math.prod(specs[0].shape), math.prod(outputs[0].shape))

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """Rows stay unless the mean is over them."""
        return None if 0 in self._axes(shapes[0]) else multiples[0]

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.mean."""
        assert tensors[0] is not None
        return (tensors[0].mean(self.dims, self.keepdim),)

    def _axes(self, shape: Shape) -> set[int]:
        """The axes that go; a scalar counts as having one, as in torch."""
        axes = [wrapped_axis(self, "dims", dim, shape or (1,)) for dim in self.dims]
        if len(set(axes)) < len(axes):
            raise self.invalid("dims", f"must name no axis of shape {list(shape)} twice, got {list(self.dims)}")
        return set(axes) if axes else set(range(len(shape)))


def _shapes(specs: Specs) -> tuple[Shape, Shape]:
    left, right = specs
    assert left is not None
    assert right is not None
    return left.shape, right.shape


def _both(tensors: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    left, right = tensors
    assert left is not None
    assert right is not None
    return left, right


OPERATORS: tuple[type[Operator], ...] = (Add, Subtract, Multiply, Divide, Matmul, Mean)
