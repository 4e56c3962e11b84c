"""Cases of the activations.

References of the two that draw are written here in numpy, from SplitMix64's definition alone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from tests.cases import softmax
from tests.operator_cases import Bad, Case, T

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8")
INF, NAN = math.inf, math.nan

# Elementwise calls run padded to whole vectors, torch alone has a tail: these round it otherwise in the last bit.
ROUNDED = {"selu", "silu", "mish", "sigmoid", "elu", "celu", "softplus", "gelu"}
ROUNDING = {"float32": (1e-5, 1e-6), "float64": (1e-14, 1e-14), "float16": (2e-3, 1e-4), "bfloat16": (1e-2, 1e-3)}

# function -> arguments after the input, one row a case beside the defaults
PARAMETERS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "relu": ((),),
    "relu6": ((),),
    "selu": ((),),
    "silu": ((),),
    "mish": ((),),
    "softsign": ((),),
    "hardsigmoid": ((),),
    "hardswish": ((),),
    "logsigmoid": ((),),
    "tanhshrink": ((),),
    "tanh": ((),),
    "sigmoid": ((),),
    "leaky_relu": ((), (0.2,), (-0.5,), (0.0,), (-0.0,), (3e38,)),
    "elu": ((), (0.3,), (-1.0,), (0.0,)),
    "celu": ((), (0.3,), (-2.0,)),
    "softplus": ((), (2.5, 3.0), (-1.0,), (1.0, -5.0)),
    "softshrink": ((), (0.0,), (2.0,)),
    "hardshrink": ((), (0.0,), (2.0,), (-1.0,)),
    "hardtanh": ((), (-0.25, 2.5), (0.0, 0.0), (-INF, 0.5), (-0.5, INF)),
    "threshold": ((0.1, 20.0), (0.0, -0.0), (0.0, NAN), (-INF, 1.0), (INF, -INF)),
    "gelu": ((),),
    "rrelu": ((), (0.1, 0.1), (-0.5, 0.25)),
}


def splitmix64(seed: int, count: int) -> np.ndarray:
    """The first outputs of splitmix64.c from a state of `seed`."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def rrelu(x: torch.Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *, seed: int = 0) -> Any:
    """rrelu with its draw by (seed, element)."""
    if not training:
        return F.rrelu(x, lower, upper)
    draws = (splitmix64(seed, x.numel()) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    slopes = torch.from_numpy(draws * (upper - lower) + lower).to(x.dtype).reshape(x.shape)
    return torch.where(x <= 0, x * slopes, x)


def gumbel_softmax(
    x: torch.Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1, *, seed: int = 0
) -> Any:
    """gumbel_softmax with its draw by (seed, element)."""
    uniform = ((splitmix64(seed, x.numel()) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    noise = torch.from_numpy(-np.log(-np.log(uniform))).to(x.dtype).reshape(x.shape)
    soft = torch.softmax((x + noise) / tau, dim)
    if not hard:
        return soft
    winner = soft.argmax(dim, keepdim=True)
    return torch.zeros_like(soft).scatter_(dim, winner, 1.0)


def case(function: str, about: str, *args: Any, dtype: str = "float32", **kwargs: Any) -> Case:
    """A case whose tolerance is what the function needs in this dtype."""
    drawn = {"gumbel_softmax": gumbel_softmax, "rrelu": rrelu}.get(function)
    rounded = function in ROUNDED or function == "gumbel_softmax"
    return Case(
        f"{function}-{about}", function, args, kwargs, reference=drawn, tolerance=ROUNDING[dtype] if rounded else None
    )


def _worked_examples() -> list[Case]:
    return [
        Case("relu-worked", "relu", (T(values=[-1.0, 2.0, -3.0, 4.0]),), expected=[0.0, 2.0, 0.0, 4.0]),
        Case("leaky_relu-worked", "leaky_relu", (T(values=[-1.0, 2.0]), 0.25), expected=[-0.25, 2.0]),
        Case("prelu-worked", "prelu", (T(values=[[-1.0, -1.0]]), T(values=[0.5, 2.0])), expected=[[-0.5, -2.0]]),
    ]


def _elementwise() -> list[Case]:
    rows = []
    for function, variants in PARAMETERS.items():
        for number, parameters in enumerate(variants):
            rows.append(case(function, f"parameters-{number}", T((3, 50), seed=number), *parameters))
        first = variants[0]
        rows += [case(function, dtype, T((2, 3, 35), dtype), *first, dtype=dtype) for dtype in FLOATS[1:]]
        rows.append(case(function, "special", T((4, 21), values="special"), *first))
        rows.append(case(function, "scalar", T(()), *first))
    rows += [case("gelu", f"tanh-{dtype}", T((3, 50), dtype), approximate="tanh", dtype=dtype) for dtype in FLOATS]
    rows += [case("relu", f"rank-{rank}", T((2,) * rank)) for rank in (1, 2, 4, 5, 8)]
    rows += [case(function, "empty", T((0, 3)), *PARAMETERS[function][0]) for function in ("relu", "silu", "threshold")]
    rows += [case(function, "large", T((5, 70, 101))) for function in ("relu", "gelu", "mish")]
    return rows


def _integers() -> list[Case]:
    rows = [
        case(function, dtype, T((5, 7), dtype))
        for function in ("relu", "relu6", "softsign", "tanhshrink", "tanh", "sigmoid")
        for dtype in (*INTEGERS, *(("bool",) if function in ("tanh", "sigmoid") else ()))
    ]
    rows += [case("hardtanh", dtype, T((5, 7), dtype), 0, 20) for dtype in INTEGERS]
    rows += [case("threshold", dtype, T((5, 7), dtype), 3, 5) for dtype in INTEGERS]
    rows.append(case("hardtanh", "int64-truncates", T((9,), "int64"), -1.5, 2.5))
    return rows


def _slopes() -> list[Case]:
    rows = [
        case("prelu", "one", T((3, 4, 5)), T(values=[0.2])),
        case("prelu", "one-scalar", T((3, 4, 5)), T((), seed=1)),
        case("prelu", "one-of-a-scalar", T(()), T((1,))),
        case("prelu", "one-of-a-vector", T((6,)), T((1,))),
        case("prelu", "by-channel", T((3, 4, 5)), T((4,))),
        case("prelu", "by-channel-2d", T((3, 4)), T((4,))),
        case("prelu", "by-channel-5d", T((2, 3, 2, 2, 2)), T((3,))),
        case("prelu", "by-channel-special", T((2, 7, 6), values="special"), T((7,))),
        case("prelu", "empty", T((0, 4)), T((4,))),
        *(case("prelu", dtype, T((2, 4, 9), dtype), T((4,), dtype)) for dtype in FLOATS[1:]),
    ]
    rows += [case("rrelu", f"training-{dtype}", T((4, 33), dtype), training=True, seed=7) for dtype in FLOATS]
    rows += [
        case("rrelu", "training-largest-seed", T((2, 3, 4, 5)), 0.1, 0.9, True, seed=2**64 - 1),
        case("rrelu", "training-one-slope", T((50,)), 0.3, 0.3, training=True, seed=1),
        case("rrelu", "training-negative-slopes", T((50,)), -2, -1, training=True, seed=2),
        case("rrelu", "training-special", T((3, 14), values="special"), training=True, seed=3),
        case("rrelu", "training-empty", T((0,)), training=True, seed=4),
        case("rrelu", "training-scalar", T(()), training=True, seed=5),
        case("rrelu", "evaluation-with-a-seed", T((5, 5)), seed=6),
    ]
    return rows


def _along_axis() -> list[Case]:
    rows = [case("glu", dtype, T((3, 10), dtype)) for dtype in FLOATS]
    rows += [case("glu", f"dim{dim}", T((2, 4, 6)), dim) for dim in (0, 1, 2, -2)]
    rows += [
        case("glu", "vector", T((8,))),
        case("glu", "empty", T((3, 0))),
        case("glu", "special", T((5, 14), values="special")),
    ]
    rows += [case("gumbel_softmax", dtype, T((5, 6), dtype), seed=1, dtype=dtype) for dtype in FLOATS]
    rows += [
        case("gumbel_softmax", "tau", T((5, 6)), 0.3, seed=2),
        case("gumbel_softmax", "hard", T((5, 6)), hard=True, seed=3),
        case("gumbel_softmax", "hard-dim0", T((5, 6)), 2, True, dim=0, seed=2**64 - 1),
        case("gumbel_softmax", "dim1", T((2, 3, 4)), dim=1, seed=4),
        case("gumbel_softmax", "scalar", T(()), seed=5),
        case("gumbel_softmax", "empty", T((0, 3)), seed=6),
    ]
    return rows


CASES: list[Case] = [*_worked_examples(), *_elementwise(), *_integers(), *_slopes(), *_along_axis(), *softmax.CASES]


def _bad_scalars() -> list[Bad]:
    # function -> field -> arguments that are refused, the wrong one among them
    wrong: dict[str, dict[str, tuple[tuple[Any, ...], ...]]] = {
        "leaky_relu": {"negative_slope": ((NAN,), (INF,), (-INF,), (1e39,))},
        "elu": {"alpha": ((NAN,), (INF,), (-1e39,))},
        "celu": {"alpha": ((0.0,), (-0.0,), (NAN,), (INF,), (1e300,), (1e-300,))},
        "softplus": {"beta": ((0.0,), (NAN,), (INF,), (1e39,)), "threshold": ((1.0, NAN), (1.0, INF), (1.0, -1e39))},
        "softshrink": {"lambd": ((-0.5,), (NAN,), (INF,), (1e39,))},
        "hardshrink": {"lambd": ((NAN,), (INF,), (1e39,))},
        "threshold": {"threshold": ((NAN, 0.0), (1e39, 0.0)), "value": ((0.0, 1e39),)},
        "hardtanh": {
            "min_val": ((2.0, 1.0), (NAN, 1.0), (INF, -INF), (-1e39, 1.0)),
            "max_val": ((-1.0, NAN), (0.0, 1e39)),
        },
        "rrelu": {
            "lower": ((0.5, 0.25), (NAN, 1.0), (-INF, 1.0), (-1e39, 0.0)),
            "upper": ((0.0, NAN), (0.0, INF), (0.0, 1e39)),
        },
    }
    rows = [
        Bad(f"gelu-approximate-{name}", "gelu", (T((3, 4)),), "approximate", {"approximate": name})
        for name in ("sigmoid", "", "TANH")
    ]
    return rows + [
        Bad(f"{function}-{field}-{number}", function, (T((3, 4)), *arguments), field)
        for function, fields in wrong.items()
        for field, rows in fields.items()
        for number, arguments in enumerate(rows)
    ]


def _bad_dtypes() -> list[Bad]:
    rows = [
        Bad(f"{function}-{dtype}", function, (T((3, 4), dtype), *PARAMETERS[function][0]), "input")
        for function, dtype in (
            ("relu", "bool"),
            ("relu6", "bool"),
            ("selu", "int32"),
            ("silu", "int8"),
            ("mish", "int64"),
            ("softsign", "bool"),
            ("hardsigmoid", "uint8"),
            ("hardswish", "int16"),
            ("logsigmoid", "int64"),
            ("tanhshrink", "bool"),
            ("leaky_relu", "int32"),
            ("elu", "int64"),
            ("celu", "bool"),
            ("softplus", "int32"),
            ("softshrink", "int32"),
            ("hardshrink", "int32"),
            ("hardtanh", "bool"),
            ("threshold", "bool"),
            ("gelu", "int32"),
            ("rrelu", "int64"),
        )
    ]
    rows += [
        Bad("glu-int32", "glu", (T((3, 4), "int32"),), "input"),
        Bad("gumbel_softmax-int32", "gumbel_softmax", (T((3, 4), "int32"),), "input"),
        Bad("prelu-int32", "prelu", (T((3, 4), "int32"), T((1,), "int32")), "input"),
        Bad("hardtanh-uint8-below-0", "hardtanh", (T((3,), "uint8"),), "min_val"),
        Bad("hardtanh-int8-above", "hardtanh", (T((3,), "int8"), 0, 128), "max_val"),
        Bad("hardtanh-int64-inf", "hardtanh", (T((3,), "int64"), 0, INF), "max_val"),
        Bad("hardtanh-int64-2**63", "hardtanh", (T((3,), "int64"), 0, 2.0**63), "max_val"),
        Bad("hardtanh-float16-above", "hardtanh", (T((3,), "float16"), 0, 65536), "max_val"),
        Bad("threshold-uint8-below-0", "threshold", (T((3,), "uint8"), -0.5, 1), "threshold"),
        Bad("threshold-int32-2**31", "threshold", (T((3,), "int32"), 0, 2.0**31), "value"),
        Bad("threshold-int32-nan", "threshold", (T((3,), "int32"), 0, NAN), "value"),
        Bad("softshrink-float16-above", "softshrink", (T((3,), "float16"), 1e5), "lambd"),
        Bad("hardshrink-bfloat16-above", "hardshrink", (T((3,), "bfloat16"), 3.4e38), "lambd"),
        Bad("rrelu-float64-overflow", "rrelu", (T((3,), "float64"), -1.7e308, 1.7e308), "upper"),
    ]
    return rows


def _bad_shapes() -> list[Bad]:
    rows = [
        Bad(f"{function}-no-axis-{dim}", function, (T((3, 4)),), "dim", {"dim": dim})
        for function in ("glu", "gumbel_softmax")
        for dim in (2, -3, 2**31, -(2**63), 2**63 - 1)
    ]
    rows += [
        Bad("glu-odd", "glu", (T((4, 3)),), "dim"),
        Bad("glu-odd-dim0", "glu", (T((3, 4)), 0), "dim"),
        Bad("glu-scalar", "glu", (T(()),), "input"),
        *(Bad(f"gumbel_softmax-tau-{tau}", "gumbel_softmax", (T((3, 4)), tau), "tau") for tau in (0.0, -1.0, NAN, INF)),
        Bad("gumbel_softmax-hard-of-nothing", "gumbel_softmax", (T((3, 0)),), "hard", {"hard": True}),
        Bad("prelu-weights-of-others", "prelu", (T((2, 3, 4)), T((4,))), "weight"),
        Bad("prelu-2-weights-of-a-vector", "prelu", (T((2,)), T((2,))), "weight"),
        Bad("prelu-no-weights", "prelu", (T((2, 3)), T((0,))), "weight"),
        Bad("prelu-weight-matrix", "prelu", (T((2, 3)), T((1, 3))), "weight"),
        Bad("prelu-weight-dtype", "prelu", (T((2, 3)), T((3,), "float64")), "weight"),
    ]
    return rows


BAD: list[Bad] = [*_bad_scalars(), *_bad_dtypes(), *_bad_shapes(), *softmax.BAD]
