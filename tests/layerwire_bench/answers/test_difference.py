"""How answers differ from what they should be, in a sentence; and what may differ."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from layerwire_bench.answers.difference import difference, scale

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize(
    ("got", "told"),
    [
        ({}, "output is missing, the answer has nothing"),
        ({"other": ARRAY}, "output is missing, the answer has other"),
        ({"output": ARRAY, "indices": ARRAY}, "indices was answered besides"),
        ({"output": ARRAY.astype(np.float64)}, "output is float64, should be float32"),
        ({"output": ARRAY[:1]}, "output has shape (1, 3, 4), should have (2, 3, 4)"),
        ({"output": ARRAY * 1.5}, "output is off in 23 of 24 elements: 34.5 at (1, 2, 3) should be 23"),
        (
            {"output": np.where(ARRAY == 5, np.nan, ARRAY).astype(np.float32)},
            "output has NaN in 1 of 24 elements: nan at (0, 1, 1) should be 5",
        ),
        ({"output": np.where(ARRAY == 7, np.inf, ARRAY).astype(np.float32)}, "inf at (0, 1, 3) should be 7"),
    ],
    ids=["nothing", "another", "besides", "dtype", "shape", "values", "nan", "inf"],
)
def test_difference_tells(got, told):
    found = difference({"output": ARRAY}, got, 1e-3, 1e-3)
    assert found is not None
    assert told in found


@pytest.mark.parametrize(
    ("expected", "got", "rtol", "atol"),
    [
        (ARRAY, ARRAY.copy(), 0, 0),
        (ARRAY, ARRAY[:, :, ::-1].copy()[:, :, ::-1], 0, 0),
        (ARRAY, ARRAY * np.float32(1 + 1e-6), 1e-5, 0),
        (ARRAY, ARRAY + np.float32(1e-4), 0, 2e-4),
        (np.array([np.nan, np.inf, -np.inf, -0.0]), np.array([-np.nan, np.inf, -np.inf, 0.0]), 0, 0),
        (np.array([1.0, 2.0], BFLOAT16), np.array([1.0078125, 2.0], BFLOAT16), 1e-2, 0),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0, 0),
        (np.array(3.0), np.array(3.0), 0, 0),
    ],
    ids=["copy", "strides", "relative", "absolute", "special", "bfloat16", "empty", "scalar"],
)
def test_difference_allows(expected, got, rtol, atol):
    assert difference({"output": expected}, {"output": got}, rtol, atol) is None


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1, 2], np.uint8), np.array([255, 2], np.uint8)),
        (np.array([True, False]), np.array([True, True])),
        (np.array([np.inf]), np.array([-np.inf])),
        (np.array([1.0]), np.array([np.inf])),
        (np.array([np.nan]), np.array([0.0])),
        (np.array([1.0], BFLOAT16), np.array([1.0078125], BFLOAT16)),
    ],
    ids=["int64", "uint8", "bool", "signs", "infinite", "nan", "bfloat16"],
)
def test_difference_sees_what_tolerance_must_not_hide(expected, got):
    rtol = 10.0 if expected.dtype.kind in "biu" or not np.isfinite(expected.astype(np.float64)).all() else 1e-3
    assert difference({"output": expected}, {"output": got}, rtol, rtol) is not None


def test_scale_is_the_largest_finite_element():
    outputs = {"a": np.array([np.inf, -7.5, np.nan]), "b": np.array([2.0], BFLOAT16), "indices": np.array([100])}
    assert scale(outputs) == 7.5
    assert scale({"a": np.zeros(0)}) == 1.0
