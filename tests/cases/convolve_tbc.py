"""Rows of conv_tbc: worked example, every parameter and corner, and what is refused."""

from __future__ import annotations

from tests.cases.kernels import HUGE
from tests.operator_cases import Bad, Case, T

DTYPES = ("float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8")
X, W, B = T((9, 2, 3)), T((4, 3, 5), seed=1), T((5,), seed=2)


def case(name, *args, **kwargs):
    return Case(f"conv_tbc-{name}", "conv_tbc", args, kwargs)


CASES: list[Case] = [
    Case(
        "conv_tbc-worked",
        "conv_tbc",
        (T(values=[[[1.0]], [[2.0]], [[3.0]], [[4.0]]]), T(values=[[[1.0]], [[0.0]], [[-1.0]]]), T(values=[0.5])),
        expected=[[[-1.5]], [[-1.5]]],
    ),
    case("plain", X, W, B),
    case("padded", X, W, B, 2),
    case("padded-past-kernel", X, W, B, pad=20),
    case("one-step", X, T((1, 3, 5)), B),
    case("kernel-is-input", X, T((9, 3, 5)), B),
    case("kernel-longer-than-input", T((2, 2, 3)), W, B, 1),
    case("one-sample", T((9, 1, 3)), W, B, 1),
    case("one-channel", T((9, 2, 1)), T((4, 1, 1)), T((1,)), 1),
    case("empty-batch", T((9, 0, 3)), W, B, 1),
    case("special", T((9, 2, 3), values="special"), T((1, 3, 5)), B),
    *(case(dtype, T((9, 2, 3), dtype), T((4, 3, 5), dtype), T((5,), dtype), 1) for dtype in DTYPES),
]

BAD: list[Bad] = [
    *(Bad(f"conv_tbc-pad-{value}", "conv_tbc", (X, W, B, value), "pad") for value in (-1, 2**16 + 1, *HUGE)),
    Bad("conv_tbc-kernel-past-input", "conv_tbc", (X, T((10, 3, 5)), B), "weight"),
    Bad("conv_tbc-kernel-past-padded-input", "conv_tbc", (X, T((12, 3, 5)), B, 1), "weight"),
    Bad("conv_tbc-weight-of-other-channels", "conv_tbc", (X, T((4, 5, 3)), B), "weight"),
    Bad("conv_tbc-weight-rank-2", "conv_tbc", (X, T((3, 5)), B), "weight"),
    Bad("conv_tbc-weight-no-steps", "conv_tbc", (X, T((0, 3, 5)), B), "weight"),
    Bad("conv_tbc-weight-no-output", "conv_tbc", (X, T((4, 3, 0)), T((0,))), "weight"),
    Bad("conv_tbc-weight-float64", "conv_tbc", (X, T((4, 3, 5), "float64"), B), "weight"),
    Bad("conv_tbc-bias-float16", "conv_tbc", (X, W, T((5,), "float16")), "bias"),
    Bad("conv_tbc-bias-too-long", "conv_tbc", (X, W, T((6,))), "bias"),
    Bad("conv_tbc-bias-scalar", "conv_tbc", (X, W, T(())), "bias"),
    Bad("conv_tbc-bias-rank-2", "conv_tbc", (X, W, T((1, 5))), "bias"),
    Bad("conv_tbc-rank-2", "conv_tbc", (T((9, 3)), W, B), "input"),
    Bad("conv_tbc-rank-4", "conv_tbc", (T((9, 2, 3, 1)), W, B), "input"),
    Bad("conv_tbc-no-time", "conv_tbc", (T((0, 2, 3)), T((1, 3, 5)), B, 2), "input"),
    Bad("conv_tbc-no-channels", "conv_tbc", (T((9, 2, 0)), T((4, 0, 5)), B), "input"),
    Bad("conv_tbc-bool", "conv_tbc", (T((9, 2, 3), "bool"), T((4, 3, 5), "bool"), T((5,), "bool")), "input"),
    Bad("conv_tbc-huge-output", "conv_tbc", (T((1, 1, 1)), T((1, 1, 20000)), T((20000,)), 2**16), "input"),
    Bad("conv_tbc-huge-output-of-no-sample", "conv_tbc", (T((1, 0, 1)), T((1, 1, 999)), T((999,)), 2**16), "input"),
    Bad("conv_tbc-much-work", "conv_tbc", (T((2**21, 1, 1)), T((2**21, 1, 1)), T((1,))), "input"),
]
