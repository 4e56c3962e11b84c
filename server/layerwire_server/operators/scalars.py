"""Scalar parameters of operators: what each may be, how it is read from a message, and the words that refuse the rest.

It knows parameter messages and the ranges of dtypes; nothing of shapes or kernels.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from layerwire.errors import invalid
from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES
from layerwire_server.operators.operator import FLOATS, TORCH_DTYPES, Operator


class Rule(NamedTuple):
    """What a scalar must be, in words and as a test."""

    words: str
    holds: Callable[[float], bool]


ANY = Rule("may be anything", lambda _: True)
NOT_NAN = Rule("must not be NaN", lambda value: not math.isnan(value))
FINITE = Rule("must be finite", math.isfinite)
FINITE_NOT_ZERO = Rule("must be finite and not 0", lambda value: math.isfinite(value) and value != 0)
POSITIVE = Rule("must be finite and above 0", lambda value: math.isfinite(value) and value > 0)
NOT_NEGATIVE = Rule("must be finite and at least 0", lambda value: math.isfinite(value) and value >= 0)


class Fits(enum.Enum):
    """The type that torch converts a scalar to; it raises where the scalar is out of that type's range."""

    FLOAT64 = "float64"  # every double does
    KERNEL = "kernel"  # the type the kernel computes in: float32 where the input is float16 or bfloat16
    INPUT = "input"  # the input's dtype


class Scalar(NamedTuple):
    """What a dataclass field holds a scalar parameter to."""

    rule: Rule
    fits: Fits
    required: bool


class UnequalFloat(float):
    """-0.0 or NaN, equal to its own bits alone.

    Plain floats say that -0.0 equals 0.0, though an operator answers otherwise with the one than with the other, and
    that NaN equals nothing, so that an operator with it would never find its like.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnequalFloat) and self.hex() == other.hex()

    def __hash__(self) -> int:
        return hash(self.hex())


def scalar(rule: Rule, default: Any = dataclasses.MISSING, fits: Fits = Fits.FLOAT64) -> Any:
    """A dataclass field for a scalar parameter; without a default it is required."""
    return dataclasses.field(
        default=default, metadata={"scalar": Scalar(rule, fits, required=default is dataclasses.MISSING)}
    )


def read(operator: type[Operator], message: Any) -> dict[str, float]:
    """The scalar parameters that a message gives, by name.

    Raises:
        InvalidArgumentError: one is against its rule, or required and not there.
    """
    values: dict[str, float] = {}
    for name, parameter in _scalars(operator):
        if not message.HasField(name):
            if parameter.required:
                raise invalid(operator.name, name, "is required")
            continue
        value = getattr(message, name)
        if not parameter.rule.holds(value):
            raise invalid(operator.name, name, f"{parameter.rule.words}, got {value}")
        values[name] = comparable(value)
    return values


def check_ranges(operator: Operator, dtype: int) -> None:
    """Checks that torch can convert the scalar parameters to the types it needs them in for an input of this dtype.

    Raises:
        InvalidArgumentError: one is out of range.
    """
    for name, parameter in _scalars(type(operator)):
        value = getattr(operator, name)
        if parameter.fits is Fits.FLOAT64 or (dtype in FLOATS and not math.isfinite(value)):
            continue
        lowest, greatest = _RANGES[_KERNEL_DTYPES.get(dtype, dtype) if parameter.fits is Fits.KERNEL else dtype]
        if not lowest <= value <= greatest:
            rule = f"must be from {lowest} to {greatest} for {DTYPE_NAMES[dtype]} input, got {value}"
            raise operator.invalid(name, rule)


def kernel_greatest(dtype: int) -> float:
    """The greatest finite number of the type that a kernel computes in for an input of this dtype."""
    return _RANGES[_KERNEL_DTYPES.get(dtype, dtype)][1]


def comparable(value: float) -> float:
    """The value, as UnequalFloat where plain floats compare otherwise than operators with them answer."""
    if math.isnan(value) or (value == 0 and math.copysign(1, value) < 0):
        return UnequalFloat(value)
    return value


def _scalars(operator: type[Operator]) -> list[tuple[str, Scalar]]:
    return [
        (field.name, field.metadata["scalar"]) for field in dataclasses.fields(operator) if "scalar" in field.metadata
    ]


def _range(dtype: torch.dtype) -> tuple[float, float]:
    info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return info.min, info.max


_RANGES = {wire: _range(dtype) for wire, dtype in TORCH_DTYPES.items() if dtype != torch.bool}
_KERNEL_DTYPES = {DTYPES["float16"]: DTYPES["float32"], DTYPES["bfloat16"]: DTYPES["float32"]}
