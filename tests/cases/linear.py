"""Cases of linear, bilinear and cosine_similarity."""

from __future__ import annotations

import math
from typing import Any

from tests.operator_cases import Bad, Case, T

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
TOLERANCES = {"float32": (1e-5, 1e-5), "float64": (1e-13, 1e-13), "float16": (2e-3, 2e-3), "bfloat16": (2e-2, 2e-2)}


def linear(about: str, *args: Any, dtype: str = "float32") -> Case:
    """A case of linear, within a product's rounding."""
    return Case(f"linear-{about}", "linear", args, tolerance=TOLERANCES.get(dtype))


def bilinear(about: str, *args: Any, dtype: str = "float32") -> Case:
    """A case of bilinear, within a product's rounding."""
    return Case(f"bilinear-{about}", "bilinear", args, tolerance=TOLERANCES.get(dtype))


def _worked_examples() -> list[Case]:
    # [1, 2, 3] times the 3x4 matrix with rows 1, 2, 3, 4; linear takes it transposed
    columns = [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0], [4.0, 4.0, 4.0]]
    return [
        Case(
            "linear-worked", "linear", (T(values=[1.0, 2.0, 3.0]), T(values=columns)), expected=[6.0, 12.0, 18.0, 24.0]
        ),
        Case("linear-worked-bias", "linear", (T(values=[[2.0]]), T(values=[[3.0]]), T(values=[1.0])), expected=[[7.0]]),
        linear("100-to-10", T((32, 100)), T((10, 100)), T((10,))),
        Case(
            "bilinear-worked",
            "bilinear",
            (T(values=[1.0, 2.0]), T(values=[3.0]), T(values=[[[1.0], [10.0]]]), T(values=[0.5])),
            expected=[63.5],
        ),
    ]


def _linear() -> list[Case]:
    rows = [linear(dtype, T((5, 17), dtype), T((9, 17), dtype), T((9,), dtype), dtype=dtype) for dtype in FLOATS]
    rows += [linear(dtype, T((5, 7), dtype), T((3, 7), dtype), T((3,), dtype), dtype=dtype) for dtype in INTEGERS]
    rows += [linear(f"rank-{rank}", T((2,) * (rank - 1) + (6,)), T((4, 6)), T((4,))) for rank in (1, 3, 4, 5)]
    rows += [
        linear("no-bias", T((5, 17)), T((9, 17))),
        linear("one-row", T((1, 64)), T((32, 64)), T((32,))),
        linear("more-rows-than-a-tile", T((70, 20)), T((5, 20)), T((5,))),
        linear("weight-vector", T((3, 4, 5)), T((5,))),
        linear("weight-vector-input-vector", T((5,)), T((5,))),
        linear("one-to-one", T((3, 1)), T((1, 1)), T((1,))),
        linear("empty-rows", T((0, 5)), T((3, 5)), T((3,))),
        linear("empty-in", T((4, 0)), T((3, 0)), T((3,))),
        linear("empty-out", T((4, 5)), T((0, 5)), T((0,))),
        linear("special", T((9, 8), values="special"), T((3, 8)), T((3,))),
        linear("special-weight", T((9, 8)), T((3, 8), values="special")),
        linear("wide", T((3, 1000)), T((300, 1000)), T((300,))),
    ]
    return rows


def _bilinear() -> list[Case]:
    rows = [
        bilinear(dtype, T((5, 6), dtype), T((5, 7), dtype, seed=1), T((3, 6, 7), dtype), T((3,), dtype), dtype=dtype)
        for dtype in (*FLOATS, "int64", "uint8")
    ]
    rows += [
        bilinear(f"rank-{rank}", T((2,) * (rank - 1) + (4,)), T((2,) * (rank - 1) + (5,)), T((3, 4, 5)), T((3,)))
        for rank in (1, 3, 4, 5)
    ]
    rows += [
        bilinear("no-bias", T((5, 6)), T((5, 7)), T((3, 6, 7))),
        bilinear("empty-rows", T((0, 6)), T((0, 7)), T((3, 6, 7)), T((3,))),
        bilinear("one-of-each", T((2, 1)), T((2, 1), seed=1), T((1, 1, 1)), T((1,))),
        bilinear("special", T((7, 4), values="special"), T((7, 3)), T((2, 4, 3))),
    ]
    return rows


def cosine(about: str, *args: Any, **kwargs: Any) -> Case:
    """A case of cosine_similarity; its last bits are torch's."""
    return Case(f"cosine-{about}", "cosine_similarity", args, kwargs)


def _cosine() -> list[Case]:
    triangle = (T(values=[[3.0, 4.0], [0.0, 2.0]]), T(values=[[4.0, 3.0], [-5.0, 0.0]]))
    long = (T((2, 40_000), "float64"), T((2, 40_000), "float64", seed=1))
    rows = [Case("cosine-worked", "cosine_similarity", triangle, expected=[0.96, 0.0])]
    rows += [cosine(dtype, T((5, 17), dtype), T((5, 17), dtype, seed=1)) for dtype in FLOATS]
    rows += [
        cosine(f"rank-{rank}-dim-{dim}", T((3, 4, 2, 3)[:rank]), T((3, 4, 2, 3)[:rank], seed=1), dim)
        for rank in (1, 2, 3, 4)
        for dim in range(-rank, rank)
    ]
    rows += [
        cosine(f"broadcast-{'x'.join(map(str, left))}-{'x'.join(map(str, right))}", T(left), T(right, seed=1), dim)
        for left, right, dim in (
            ((5, 7), (7,), 1),
            ((7,), (5, 7), 1),
            ((5, 7), (1, 7), 1),
            ((5, 7), (5, 1), -1),
            ((5, 1, 7), (1, 3, 7), 2),
            ((5, 3, 7), (3, 7), -3),
            ((5, 7), (), 0),
        )
    ]
    rows += [
        cosine("scalars", T(()), T((), seed=1), -1),
        cosine("zeros", T((2, 3), values=[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), T((2, 3), seed=1)),
        cosine("zeros-eps-0", T((2, 3), "float64", values=[[0.0] * 3, [1.0] * 3]), T((2, 3), "float64"), eps=0),
        cosine("eps-that-counts", T((4, 3), "float64"), T((4, 3), "float64", seed=1), 1, 10.0),
        cosine("eps-over-float16", T((4, 3), "float16"), T((4, 3), "float16", seed=1), 1, 1e5),
        cosine("special", T((9, 8), values="special"), T((9, 8), seed=1)),
        cosine("no-rows", T((0, 3)), T((0, 3))),
        cosine("no-elements", T((2, 0)), T((2, 0))),
        cosine("no-elements-broadcast", T((2, 0)), T((2, 1)), 0),
        cosine("long", *long),
        cosine("lone-and-long", *(T(x.shape[1:], x.dtype, seed=x.seed) for x in long), 0),
    ]
    return rows


CASES: list[Case] = [*_worked_examples(), *_linear(), *_bilinear(), *_cosine()]

BAD: list[Bad] = [
    Bad("linear-scalar", "linear", (T(()), T((3, 1))), "input"),
    Bad("linear-bool", "linear", (T((2, 3), "bool"), T((4, 3), "bool")), "input"),
    Bad("linear-in-features", "linear", (T((2, 3)), T((4, 5))), "weight"),
    Bad("linear-transposed", "linear", (T((2, 3)), T((3, 4))), "weight"),
    Bad("linear-weight-scalar", "linear", (T((2, 3)), T(())), "weight"),
    Bad("linear-weight-3d", "linear", (T((2, 3)), T((1, 4, 3))), "weight"),
    Bad("linear-weight-vector-size", "linear", (T((2, 3)), T((4,))), "weight"),
    Bad("linear-weight-dtype", "linear", (T((2, 3)), T((4, 3), "float64")), "weight"),
    Bad("linear-bias-size", "linear", (T((2, 3)), T((4, 3)), T((3,))), "bias"),
    Bad("linear-bias-one", "linear", (T((2, 3)), T((4, 3)), T((1,))), "bias"),
    Bad("linear-bias-matrix", "linear", (T((2, 3)), T((4, 3)), T((2, 4))), "bias"),
    Bad("linear-bias-scalar", "linear", (T((2, 3)), T((4, 3)), T(())), "bias"),
    Bad("linear-bias-dtype", "linear", (T((2, 3)), T((4, 3)), T((4,), "float16")), "bias"),
    Bad("linear-bias-of-a-vector", "linear", (T((2, 3)), T((3,)), T(())), "bias"),
    Bad("linear-output-of-terabytes", "linear", (T((1, 0)), T((2**40, 0))), "input"),
    Bad("linear-tile-of-terabytes", "linear", (T((0, 0)), T((2**40, 0))), "input"),
    Bad("bilinear-scalar", "bilinear", (T(()), T(()), T((1, 1, 1))), "input"),
    Bad("bilinear-bool", "bilinear", (T((2, 3), "bool"), T((2, 3), "bool"), T((1, 3, 3), "bool")), "input"),
    Bad("bilinear-rows", "bilinear", (T((2, 3)), T((4, 5)), T((1, 3, 5))), "input2"),
    Bad("bilinear-ranks", "bilinear", (T((2, 3)), T((5,)), T((1, 3, 5))), "input2"),
    Bad("bilinear-input2-dtype", "bilinear", (T((2, 3)), T((2, 5), "float64"), T((1, 3, 5))), "input2"),
    Bad("bilinear-in1-features", "bilinear", (T((2, 3)), T((2, 5)), T((1, 4, 5))), "weight"),
    Bad("bilinear-in2-features", "bilinear", (T((2, 3)), T((2, 5)), T((1, 3, 4))), "weight"),
    Bad("bilinear-weight-matrix", "bilinear", (T((2, 3)), T((2, 5)), T((3, 5))), "weight"),
    Bad("bilinear-weight-dtype", "bilinear", (T((2, 3)), T((2, 5)), T((1, 3, 5), "bfloat16")), "weight"),
    Bad("bilinear-no-features", "bilinear", (T((2, 3)), T((2, 0)), T((1, 3, 0))), "weight"),
    Bad("bilinear-too-many-features", "bilinear", (T((0, 1)), T((0, 1)), T((4097, 1, 1))), "weight"),
    Bad("bilinear-bias-size", "bilinear", (T((2, 3)), T((2, 5)), T((2, 3, 5)), T((3,))), "bias"),
    Bad("bilinear-bias-dtype", "bilinear", (T((2, 3)), T((2, 5)), T((2, 3, 5)), T((2,), "float64")), "bias"),
    *(
        Bad(f"cosine-{dtype}", "cosine_similarity", (T((2, 3), dtype), T((2, 3), dtype)), "input")
        for dtype in (*INTEGERS, "bool")
    ),
    Bad("cosine-dtypes", "cosine_similarity", (T((2, 3)), T((2, 3), "float64")), "input2"),
    Bad("cosine-sizes", "cosine_similarity", (T((2, 3)), T((2, 4))), "input2"),
    Bad("cosine-rows", "cosine_similarity", (T((2, 3)), T((4, 3))), "input2"),
    Bad("cosine-rows-and-none", "cosine_similarity", (T((2, 3)), T((0, 3))), "input2"),
    Bad("cosine-default-dim-of-a-vector", "cosine_similarity", (T((3,)), T((3,))), "dim"),
    Bad("cosine-dim-of-scalars", "cosine_similarity", (T(()), T(()), 1), "dim"),
    Bad("cosine-dim-too-low", "cosine_similarity", (T((2, 3)), T((3,)), -3), "dim"),
    Bad("cosine-dim-huge", "cosine_similarity", (T((2, 3)), T((2, 3)), 2**62), "dim"),
    *(
        Bad(f"cosine-eps-{eps}", "cosine_similarity", (T((2, 3)), T((2, 3)), 1, eps), "eps")
        for eps in (-1.0, math.nan, math.inf, 1e39)
    ),
    Bad("cosine-broadcast-of-terabytes", "cosine_similarity", (T((2**20, 1, 1)), T((1, 2**20, 1)), 2), "input"),
    Bad("cosine-huge-and-empty", "cosine_similarity", (T((2**21, 1, 0)), T((1, 2**21, 0)), 2), "input"),
    Bad("cosine-output-of-terabytes", "cosine_similarity", (T((2**40, 0)), T((2**40, 0))), "input"),
]
