"""Inputs of both convolutions' rows."""

from __future__ import annotations

from tests.operator_cases import Case, T

EXTENTS = {1: (11,), 2: (9, 7), 3: (5, 6, 7)}
TOLERANCES = {"float32": (1e-4, 1e-5), "float64": (1e-10, 1e-12), "float16": (1e-2, 1e-2), "bfloat16": (5e-2, 5e-2)}
HUGE = (2**31, 2**32 + 3, 2**62, 2**63 - 1)


def x(dims, batched=True, channels=4, dtype="float32", values="normal"):
    """An input of 2 samples, or of one unbatched."""
    return T(((2, channels) if batched else (channels,)) + EXTENTS[dims], dtype, values)


def weight(dims, *channels, size=3, dtype="float32"):
    """Kernels of `size` along every axis."""
    return T(channels + (size,) * dims, dtype, "uniform", seed=1)


def bias(channels, dtype="float32"):
    return T((channels,), dtype, seed=2)


def case(name, function, *args, dtype="float32", reference=None, **kwargs):
    return Case(name, function, args, kwargs, reference=reference, tolerance=TOLERANCES.get(dtype))
