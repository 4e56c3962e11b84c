"""Turns an argument of a call into what the wire wants, or refuses it: sizes, integers, numbers, flags.

It knows numpy's scalars; no operator in particular. Whether a value is in range is the server's to say.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from operator import index
from typing import Any, SupportsFloat, SupportsIndex, TypeAlias

import numpy as np

from layerwire.calls import tensor_types
from layerwire.errors import invalid
from layerwire.v1 import tensor_pb2
from layerwire.wire.dtypes import DTYPES

Size: TypeAlias = SupportsIndex | Sequence[SupportsIndex]  # one value for all axes, or one an axis
OptionalSize: TypeAlias = (
    SupportsIndex | Sequence[SupportsIndex | None] | None
)  # adaptive pooling: None keeps the input's
DTypeLike: TypeAlias = tensor_types.DTypeLike


def integer(function: str, name: str, value: SupportsIndex) -> int:
    """A signed 64-bit integer.

    Raises:
        TypeError: it is no integer.
        InvalidArgumentError: it is out of range.
    """
    if type(value) is int and -0x8000_0000 < value < 0x8000_0000:
        return value  # nearly always, and five times as fast
    return _integer_between(function, name, value, -(1 << 63), (1 << 63) - 1)


def seed_of(function: str, seed: SupportsIndex | None) -> int:
    """The seed of a draw, an unsigned 64-bit integer, a fresh one for None; raises as `integer` does."""
    return secrets.randbits(64) if seed is None else _integer_between(function, "seed", seed, 0, (1 << 64) - 1)


def _integer_between(function: str, name: str, value: SupportsIndex, least: int, most: int) -> int:
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{function}: {name} must be an integer, got {value}")
    try:
        number = index(value)
    except TypeError:
        raise TypeError(f"{function}: {name} must be an integer, got {_text_of(value)}") from None
    if not least <= number <= most:
        text = number if number.bit_length() < 256 else f"a number of {number.bit_length()} bits"
        raise invalid(function, name, f"must be {least} to {most}, got {text}")
    return number


def sizes(function: str, name: str, value: Size) -> list[int]:
    """Sizes along the spatial axes: one for all of them, or one an axis.

    Raises:
        TypeError: it is neither an integer nor a sequence of integers.
        InvalidArgumentError: one is out of range, or there are none.
    """
    if type(value) is int or not _is_sequence(value):
        return [integer(function, name, value)]  # type: ignore[arg-type]
    numbers = [integer(function, name, item) for item in value]  # type: ignore[union-attr]
    if not numbers:
        raise invalid(function, name, "must have at least one value, got none")
    return numbers


def step(function: str, name: str, value: Size | None) -> list[int]:
    """As `sizes`; None and an empty sequence ask for the default, as torch's stride does."""
    if value is None or (_is_sequence(value) and not len(value)):  # type: ignore[arg-type]
        return []
    return sizes(function, name, value)


def kept_sizes(function: str, name: str, value: OptionalSize) -> list[int]:
    """As `sizes`; None, for an axis or for all, keeps the input's extent, which is -1 on the wire."""
    if value is None:
        return [-1]
    if _is_sequence(value):
        value = [-1 if item is None else item for item in value]  # type: ignore[union-attr]
    return sizes(function, name, value)  # type: ignore[arg-type]


def number(function: str, name: str, value: SupportsFloat) -> float:
    """A double.

    Raises:
        TypeError: it is no number.
        InvalidArgumentError: no double is as large.
    """
    if type(value) is float:
        return value
    if isinstance(value, bool | np.bool_) or not hasattr(type(value), "__float__"):
        raise TypeError(f"{function}: {name} must be a number, got {_text_of(value)}")
    try:
        return float(value)
    except OverflowError:
        raise invalid(function, name, "must fit in a double, got a larger integer") from None
    except (TypeError, ValueError, RuntimeError):  # arrays and tensors of several elements
        raise TypeError(f"{function}: {name} must be a number, got {_text_of(value)}") from None


def ratios(function: str, name: str, value: SupportsFloat | Sequence[SupportsFloat] | None) -> list[float]:
    """Numbers along the spatial axes, none for None; raises as `number` does."""
    if value is None:
        return []
    if not _is_sequence(value):
        return [number(function, name, value)]  # type: ignore[arg-type]
    return [number(function, name, item) for item in value]  # type: ignore[union-attr]


def flag(function: str, name: str, value: bool) -> bool:
    """A truth value.

    Raises:
        TypeError: it is none; as in torch, 0 and 1 are not.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{function}: {name} must be True or False, got {_text_of(value)}")
    return bool(value)


def outplace(function: str, inplace: bool) -> None:
    """Refuses `inplace`.

    Raises:
        TypeError: it is no truth value.
        InvalidArgumentError: it is True.
    """
    if inplace is not False and flag(function, "inplace", inplace):  # nearly always False, and at once
        raise invalid(function, "inplace", "must be False, for the answer is a new tensor: no server writes in input")


def dtype_name(function: str, value: DTypeLike | None) -> str | None:
    """The contract's name of a dtype, DATA_TYPE_FLOAT32; None for None.

    Raises:
        TypeError: it is no dtype.
        InvalidArgumentError: no tensor can have it.
    """
    if value is None:
        return None
    name = str(value).removeprefix("torch.")  # torch's, and "bfloat16", which numpy may not know
    if name not in DTYPES:
        try:
            name = np.dtype(value).name  # type: ignore[arg-type]  # it raises for torch's, as for what is none
        except TypeError:
            raise TypeError(f"{function}: dtype must be one of {', '.join(DTYPES)}, got {_text_of(value)}") from None
    if name not in DTYPES:
        raise invalid(function, "dtype", f"must be one of {', '.join(DTYPES)}, got {name[:40]}")
    return tensor_pb2.DataType.Name(DTYPES[name])


def _is_sequence(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _text_of(value: Any) -> str:
    text = repr(value) if isinstance(value, str | float | list | tuple | None) else type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
