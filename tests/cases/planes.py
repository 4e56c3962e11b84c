"""Inputs of the spatial operators' rows: extents, dtypes, and values that no size may have."""

from __future__ import annotations

from tests.operator_cases import T

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
EXTENTS = {1: (9,), 2: (9, 7), 3: (5, 6, 7)}
HUGE = (2**31, 2**32 + 3, 2**62, 2**63 - 1)


def x(dims, batched=True, dtype="float32", values="normal", seed=0):
    """An input of 2 samples and 3 channels, or of 3 channels."""
    return T(((2, 3) if batched else (3,)) + EXTENTS[dims], dtype, values, seed)


def literal(values, dtype="float32"):
    """A tensor of these values."""
    return T(dtype=dtype, values=values)
