"""The leaky ReLUs whose slope is more than a number: prelu, of a tensor, and rrelu, of a draw.

It knows slopes; nothing of other activations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn import functional as F

from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators import counter_random
from layerwire_server.operators.checks import check_dtypes
from layerwire_server.operators.operator import Input, Merge, Operator, Placement, Specs
from layerwire_server.operators.pointwise import Pointwise
from layerwire_server.operators.scalars import FINITE, Fits, read, scalar


@dataclass(frozen=True)
class Rrelu(Pointwise):
    """rrelu; in training the slope of element i, in row-major order, is made of counter_random's number i of the seed.

    torch's own draw depends on whatever was drawn before it.
    """

    name = "rrelu"
    lower: float = scalar(FINITE, 1 / 8, Fits.KERNEL)
    upper: float = scalar(FINITE, 1 / 3, Fits.KERNEL)
    training: bool = False
    seed: int = 0

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator; the seed is kept only where it is used, so that others may share a batch whatever theirs is."""
        scalars = read(cls, message)
        operator = cls(**scalars, training=message.training, seed=message.seed if message.training else 0)
        if operator.lower > operator.upper:
            raise operator.invalid("lower", f"must be at most upper, {operator.upper}, got {operator.lower}")
        if not math.isfinite(operator.upper - operator.lower) or not math.isfinite(operator.upper + operator.lower):
            raise operator.invalid("upper", f"must have a finite sum with and distance to lower, got {operator.upper}")
        return operator

    @property
    def element_operations(self) -> int:  # type: ignore[override]  # a class variable elsewhere
        """Operations an element."""
        return 100 if self.training else 2

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        return Placement(Merge.ALONE if self.training else Merge.ELEMENTWISE, self)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        (x,) = tensors
        assert x is not None
        if not self.training:
            return (F.rrelu(x, self.lower, self.upper),)
        slopes = counter_random.uniform(self.seed, x.numel(), x.device)
        slopes.mul_(self.upper - self.lower).add_(self.lower)
        return (torch.where(x <= 0, x * slopes.to(x.dtype).view(x.shape), x),)


@dataclass(frozen=True)
class Prelu(Operator):
    """prelu: with one slope every element is a row, with one a channel every sample is."""

    name = "prelu"
    family = "activate"
    inputs = (Input("input"), Input("weight", shared=True))

    @classmethod
    def from_message(cls, message: Any) -> Self:  # noqa: ARG003  # it has no parameters
        """See Operator."""
        return cls()

    def check(self, specs: Specs) -> None:
        """See Operator."""
        check_dtypes(self, specs)
        x, weight = specs
        assert x is not None
        assert weight is not None
        channels = x.shape[1] if len(x.shape) > 1 else 1
        if len(weight.shape) > 1 or math.prod(weight.shape) not in (1, channels):
            expected = "[] or [1]" if channels == 1 else f"[], [1] or [{channels}]"
            raise self.invalid("weight", f"must have shape {expected}, got {list(weight.shape)}")

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        x, weight = specs
        assert x is not None
        assert weight is not None
        return Placement(Merge.ROWS, self, len(x.shape) if math.prod(weight.shape) == 1 else 1)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return 2 * math.prod(outputs[0].shape)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x, weight = tensors
        assert x is not None
        assert weight is not None
        return (F.prelu(x, weight),)
