"""The activations that treat each element by itself, and the family's part of the table.

It knows their parameters and dtypes; how they run is pointwise.py's.

A class says what sets its function apart from the rest: the dtypes that torch's CPU kernel takes, those for which it
rounds nothing, its parameters, and roughly what an element costs. The formulas are in operators.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from layerwire_server.operators.activate_along_axis import Glu, GumbelSoftmax, LogSoftmax, Softmax, Softmin
from layerwire_server.operators.activate_slopes import Prelu, Rrelu
from layerwire_server.operators.operator import BOOL, FLOATS, INTEGERS, WIDE_FLOATS, Operator, Specs
from layerwire_server.operators.pointwise import Pointwise
from layerwire_server.operators.scalars import (
    ANY,
    FINITE,
    FINITE_NOT_ZERO,
    NOT_NAN,
    NOT_NEGATIVE,
    Fits,
    kernel_greatest,
    scalar,
)


class Relu(Pointwise):
    name = "relu"
    exact_dtypes = WIDE_FLOATS | INTEGERS
    dtypes = FLOATS | INTEGERS


class Relu6(Pointwise):
    name = "relu6"
    exact_dtypes = WIDE_FLOATS | INTEGERS
    dtypes = FLOATS | INTEGERS
    element_operations = 2


class Selu(Pointwise):
    name = "selu"
    element_operations = 12


class Silu(Pointwise):
    name = "silu"
    element_operations = 12


class Mish(Pointwise):
    name = "mish"
    element_operations = 40


class Softsign(Pointwise):
    name = "softsign"
    exact_dtypes = WIDE_FLOATS | INTEGERS
    dtypes = FLOATS | INTEGERS
    element_operations = 6


class Hardsigmoid(Pointwise):
    name = "hardsigmoid"
    element_operations = 3


class Hardswish(Pointwise):
    name = "hardswish"
    element_operations = 4


class Logsigmoid(Pointwise):
    name = "logsigmoid"
    element_operations = 20


class Tanhshrink(Pointwise):
    name = "tanhshrink"
    dtypes = FLOATS | INTEGERS
    element_operations = 25


class Tanh(Pointwise):
    name = "tanh"
    dtypes = FLOATS | INTEGERS | BOOL
    element_operations = 25


class Sigmoid(Pointwise):
    name = "sigmoid"
    dtypes = FLOATS | INTEGERS | BOOL
    element_operations = 12


@dataclass(frozen=True)
class LeakyRelu(Pointwise):
    name = "leaky_relu"
    exact_dtypes = WIDE_FLOATS | INTEGERS
    element_operations = 2
    negative_slope: float = scalar(FINITE, 0.01, Fits.KERNEL)


@dataclass(frozen=True)
class Elu(Pointwise):
    name = "elu"
    element_operations = 12
    alpha: float = scalar(FINITE, 1.0, Fits.KERNEL)


@dataclass(frozen=True)
class Celu(Pointwise):
    name = "celu"
    element_operations = 12
    alpha: float = scalar(FINITE_NOT_ZERO, 1.0, Fits.KERNEL)

    def check(self, specs: Specs) -> None:
        """See Operator; torch converts the inverse too."""
        super().check(specs)
        assert specs[0] is not None
        least = 1 / kernel_greatest(specs[0].dtype)
        if abs(self.alpha) < least:
            raise self.invalid("alpha", f"must be {least} or more in size, got {self.alpha}")


@dataclass(frozen=True)
class Softplus(Pointwise):
    name = "softplus"
    element_operations = 20
    beta: float = scalar(FINITE_NOT_ZERO, 1.0, Fits.KERNEL)
    threshold: float = scalar(FINITE, 20.0, Fits.KERNEL)


@dataclass(frozen=True)
class Softshrink(Pointwise):
    name = "softshrink"
    element_operations = 3
    lambd: float = scalar(NOT_NEGATIVE, 0.5, Fits.INPUT)


@dataclass(frozen=True)
class Hardshrink(Pointwise):
    name = "hardshrink"
    exact_dtypes = WIDE_FLOATS | INTEGERS
    element_operations = 2
    lambd: float = scalar(FINITE, 0.5, Fits.INPUT)


@dataclass(frozen=True)
class Threshold(Pointwise):
    name = "threshold"
    exact_dtypes = WIDE_FLOATS | INTEGERS
    dtypes = FLOATS | INTEGERS
    threshold: float = scalar(NOT_NAN, fits=Fits.KERNEL)
    value: float = scalar(ANY, fits=Fits.INPUT)


@dataclass(frozen=True)
class Hardtanh(Pointwise):
    name = "hardtanh"
    exact_dtypes = WIDE_FLOATS | INTEGERS
    dtypes = FLOATS | INTEGERS
    element_operations = 2
    min_val: float = scalar(NOT_NAN, -1.0, Fits.INPUT)
    max_val: float = scalar(NOT_NAN, 1.0, Fits.INPUT)

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        operator = super().from_message(message)
        if operator.min_val > operator.max_val:
            raise operator.invalid("min_val", f"must be at most max_val, {operator.max_val}, got {operator.min_val}")
        return operator


@dataclass(frozen=True)
class Gelu(Pointwise):
    name = "gelu"
    element_operations = 12
    approximate: str = "none"

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        operator = cls(message.approximate if message.HasField("approximate") else "none")
        if operator.approximate not in ("none", "tanh"):
            raise operator.invalid("approximate", f'must be "none" or "tanh", got {operator.approximate[:40]!r}')
        return operator


OPERATORS: tuple[type[Operator], ...] = (
    Relu,
    Relu6,
    LeakyRelu,
    Prelu,
    Rrelu,
    Elu,
    Selu,
    Celu,
    Gelu,
    Silu,
    Mish,
    Softplus,
    Softsign,
    Hardtanh,
    Hardsigmoid,
    Hardswish,
    Logsigmoid,
    Tanhshrink,
    Softshrink,
    Hardshrink,
    Threshold,
    Glu,
    Softmax,
    Softmin,
    LogSoftmax,
    Tanh,
    Sigmoid,
    GumbelSoftmax,
)
