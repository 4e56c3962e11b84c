"""Cases of softmax, softmin and log_softmax: along every axis and none given, and cast before."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from tests.operator_cases import Bad, Case, T

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
FUNCTIONS = ("softmax", "softmin", "log_softmax")
MOST = 2**63 - 1


def case(function: str, about: str, *args: Any, reference: Callable[..., Any] | None = None, **kwargs: Any) -> Case:
    return Case(f"{function}-{about}", function, args, kwargs, reference=reference)


def without_warning(function: str) -> Callable[..., Any]:
    """torch warns where `dim` is not given."""

    def quiet(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return getattr(F, function)(*args, **kwargs)

    return quiet


def _along_axis(function: str) -> list[Case]:
    rows = [case(function, dtype, T((3, 10), dtype), dim=1) for dtype in FLOATS]
    rows += [case(function, f"dim{dim}", T((2, 3, 4, 5)), dim) for dim in (0, 1, 2, 3, -1, -4)]
    return [
        *rows,
        case(function, "vector", T((12,)), 0),
        case(function, "scalar", T(()), -1),
        case(function, "special", T((7, 6), values="special"), 1),
        case(function, "empty-rows", T((0, 4)), 1),
        case(function, "empty-axis", T((4, 0)), 1),
        case(function, "wide", T((2, 1000)), 1),
    ]


def _without_dim(function: str) -> list[Case]:
    """torch chooses axis 0 for 0, 1 and 3 axes, else 1."""
    quiet = without_warning(function)
    shapes = ((), (7,), (3, 4), (2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 2))
    rows = [case(function, f"no-dim-{len(shape)}d", T(shape), reference=quiet) for shape in shapes]
    return [*rows, case(function, "no-dim-cast", T((2, 3, 4), "int32"), None, 3, torch.float32, reference=quiet)]


def _cast(function: str) -> list[Case]:
    rows = [
        case(function, f"{source}-to-{target}", T((3, 10), source), 1, dtype=getattr(torch, target))
        for source, target in itertools.product(FLOATS, FLOATS)
    ]
    truths = () if function == "softmin" else ("bool",)
    rows += [case(function, f"{source}-to-float32", T((3, 9), source), 1, 3, torch.float32) for source in INTEGERS]
    rows += [case(function, f"{source}-to-float32", T((3, 9), source), 1, 3, torch.float32) for source in truths]
    return [
        *rows,
        case(function, "uint8-to-float64-dim0", T((5, 3), "uint8"), 0, dtype=torch.float64),
        case(function, "int64-to-float16-middle", T((2, 3, 4), "int64"), 1, dtype=torch.float16),
        case(function, "cast-scalar", T((), "int64"), 0, dtype=torch.float32),
        case(function, "cast-empty", T((0, 4), "int8"), 1, dtype=torch.float64),
        case(function, "cast-overflows", T(values=[[1e6, 1.0], [1.0, 2.0]], dtype="float64"), 1, dtype=torch.float16),
        case(function, "cast-special", T((7, 6), "float64", "special"), 1, dtype=torch.bfloat16),
    ]


CASES: list[Case] = [
    Case("softmax-worked", "softmax", (T(values=[[0.0, 0.0], [0.0, 0.0]]), 1), expected=[[0.5, 0.5], [0.5, 0.5]]),
    *(row for function in FUNCTIONS for row in (*_along_axis(function), *_without_dim(function), *_cast(function))),
]

BAD: list[Bad] = [
    *(
        Bad(f"{function}-no-axis-{dim}", function, (T((3, 4)),), "dim", {"dim": dim})
        for function in FUNCTIONS
        for dim in (2, -3, 2**31, -(2**63), MOST)
    ),
    *(
        Bad(f"{function}-dtype-{dtype}", function, (T((3, 4)), 1), "dtype", {"dtype": getattr(torch, dtype)})
        for function in FUNCTIONS
        for dtype in (*INTEGERS, "bool")
    ),
    Bad("softmax-scalar-dim", "softmax", (T(()), 1), "dim"),
    Bad("softmax-int64", "softmax", (T((3, 4), "int64"), 1), "input"),
    Bad("softmin-int8", "softmin", (T((3, 4), "int8"), 1), "input"),
    Bad("log_softmax-bool", "log_softmax", (T((3, 4), "bool"), 1), "input"),
    Bad("softmin-bool-cast", "softmin", (T((3, 4), "bool"), 1), "input", {"dtype": torch.float32}),
]
