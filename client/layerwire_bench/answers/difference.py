"""How an answer differs from what it should be, in a sentence.

It knows numpy; neither torch nor where answers come from.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from layerwire_bench.workload import Arrays

_Array: TypeAlias = npt.NDArray[Any]
_SHOWN_AXES = 8


def difference(expected: Arrays, got: Arrays, rtol: float, atol: float) -> str | None:
    """How the outputs differ, or None where they don't.

    Floating-point elements may be off by atol + rtol times the size of the expected one, as numpy.allclose has it; NaN
    is the same as NaN. Integers and bool must be equal.

    Args:
        expected: what should be, by output name.
        got: what was answered.
        rtol: the relative part of what is allowed.
        atol: the absolute part.
    """
    for name, array in expected.items():
        if name not in got:
            return f"{name} is missing, the answer has {', '.join(got) or 'nothing'}"
        found = _compared(np.asarray(array), np.asarray(got[name]), rtol, atol)
        if found is not None:
            return f"{name} {found}"
    if len(got) > len(expected):
        return f"{', '.join(name for name in got if name not in expected)} was answered besides"
    return None


def scale(first: Arrays) -> float:
    """What a first answer's size makes of an atol that is meant for answers near 1."""
    sizes = [
        float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        for array in (np.asarray(one, np.float64) for one in first.values() if one.dtype.kind not in "biu")
    ]
    return max([1.0, *sizes])


def _compared(expected: _Array, got: _Array, rtol: float, atol: float) -> str | None:
    if got.dtype != expected.dtype:
        return f"is {got.dtype.name}, should be {expected.dtype.name}"
    if got.shape != expected.shape:
        return f"has shape {_shown(got.shape)}, should have {_shown(expected.shape)}"
    if _same_bits(expected, got):
        return None
    if expected.dtype.kind in "biu":
        off = expected != got
        return _told(expected, got, off, np.where(off, 1.0, 0.0), None) if off.any() else None
    wide = np.dtype(np.float64 if expected.dtype.itemsize > 4 else np.float32)
    left, right = (np.asarray(one, wide) for one in (expected, got))
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(left - right)
        fine = (left == right) | (size <= atol + rtol * np.abs(left)) & np.isfinite(left)
    fine |= np.isnan(left) & np.isnan(right)
    if fine.all():
        return None
    return _told(expected, got, ~fine, np.nan_to_num(size, nan=np.inf, posinf=np.inf), (rtol, atol))


def _same_bits(expected: _Array, got: _Array) -> bool:
    """Whether no element needs a look; most answers are so, and this is quick."""
    if not (expected.flags.c_contiguous and got.flags.c_contiguous):
        return False
    return np.array_equal(np.ravel(expected).view(np.uint8), np.ravel(got).view(np.uint8))


def _told(
    expected: _Array, got: _Array, off: npt.NDArray[np.bool_], size: _Array, allowed: tuple[float, float] | None
) -> str:
    """How many elements are off, and the worst of them."""
    index = tuple(int(one) for one in np.unravel_index(np.argmax(np.where(off, size, -1.0)), off.shape))
    nans = int((np.isnan(got.astype(np.float64)) & off).sum())
    what = (
        f"has NaN in {nans:,} of {off.size:,} elements" if nans else f"is off in {off.sum():,} of {off.size:,} elements"
    )
    worst = f"{_number(got[index])} at {_shown(index)} should be {_number(expected[index])}"
    bound = "" if allowed is None else f" (rtol {allowed[0]:.1g}, atol {allowed[1]:.1g})"
    return f"{what}: {worst}{bound}"


def _number(element: Any) -> str:
    return f"{float(element):.9g}" if element.dtype.kind not in "biu" else str(element.item())


def _shown(numbers: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, numbers[:_SHOWN_AXES]))})"
