"""How an answer differs from what it should be, in a sentence.

It knows numpy; neither torch nor where answers come from.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from layerwire_bench.workload import Arrays

_Array: TypeAlias = npt.NDArray[Any]
_MAX_AXES = 8  # in a sentence


def difference(expected: Arrays, actual: Arrays, rtol: float, atol: float) -> str | None:
    """How the outputs differ, or None where they don't.

    Floating-point elements may be off by atol + rtol times the size of the expected one, as numpy.allclose has it; NaN
    is the same as NaN. Integers and bool must be equal.

    Args:
        expected: what should be, by output name.
        actual: what was answered.
        rtol: the relative part of what is allowed.
        atol: the absolute part.
    """
    for name, array in expected.items():
        if name not in actual:
            return f"{name} is missing, the answer has {', '.join(actual) or 'nothing'}"
        sentence = _array_difference(np.asarray(array), np.asarray(actual[name]), rtol, atol)
        if sentence is not None:
            return f"{name} {sentence}"
    if len(actual) > len(expected):
        return f"{', '.join(name for name in actual if name not in expected)} was answered besides"
    return None


def scale(first: Arrays) -> float:
    """What a first answer's size makes of an atol that is meant for answers near 1."""
    floats = (np.asarray(array, np.float64) for array in first.values() if array.dtype.kind not in "biu")
    return max([1.0, *(float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in floats)])


def _array_difference(expected: _Array, actual: _Array, rtol: float, atol: float) -> str | None:
    if actual.dtype != expected.dtype:
        return f"is {actual.dtype.name}, should be {expected.dtype.name}"
    if actual.shape != expected.shape:
        return f"has shape {_text(actual.shape)}, should have {_text(expected.shape)}"
    if _same_bits(expected, actual):
        return None
    if expected.dtype.kind in "biu":
        off = expected != actual
        return _worst(expected, actual, off, np.where(off, 1.0, 0.0), "") if off.any() else None
    wide = np.dtype(np.float64 if expected.dtype.itemsize > 4 else np.float32)
    left, right = (np.asarray(one, wide) for one in (expected, actual))
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(left - right)
        fine = (left == right) | (size <= atol + rtol * np.abs(left)) & np.isfinite(left)
    fine |= np.isnan(left) & np.isnan(right)
    if fine.all():
        return None
    size = np.nan_to_num(size, nan=np.inf, posinf=np.inf)
    return _worst(expected, actual, ~fine, size, f" (rtol {rtol:.1g}, atol {atol:.1g})")


def _same_bits(expected: _Array, actual: _Array) -> bool:
    """Whether no element needs a look; most answers are so, and this is quick."""
    if not (expected.flags.c_contiguous and actual.flags.c_contiguous):
        return False
    return np.array_equal(np.ravel(expected).view(np.uint8), np.ravel(actual).view(np.uint8))


def _worst(expected: _Array, actual: _Array, off: npt.NDArray[np.bool_], size: _Array, tolerance: str) -> str:
    """How many elements are off, and the worst of them."""
    index = tuple(int(one) for one in np.unravel_index(np.argmax(np.where(off, size, -1.0)), off.shape))
    nans = int((np.isnan(actual.astype(np.float64)) & off).sum())
    what = f"has NaN in {nans:,}" if nans else f"is off in {off.sum():,}"
    place = f"{_number(actual[index])} at {_text(index)} should be {_number(expected[index])}"
    return f"{what} of {off.size:,} elements: {place}{tolerance}"


def _number(element: Any) -> str:
    return f"{float(element):.9g}" if element.dtype.kind not in "biu" else str(element.item())


def _text(numbers: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, numbers[:_MAX_AXES]))})"
