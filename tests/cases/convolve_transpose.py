"""Rows of transposed convolution: every parameter and corner, and what is refused."""

from __future__ import annotations

from tests.cases.kernels import EXTENTS, HUGE, bias, case, weight, x
from tests.operator_cases import Bad, Case, T

TRANSPOSED = [
    case(
        f"conv-transpose{dims}d-{'batched' if batched else 'unbatched'}-{name}",
        f"conv_transpose{dims}d",
        x(dims, batched),
        weight(dims, 4, channels, size=size),
        bias(channels * kwargs.get("groups", 1)) if biased else None,
        **kwargs,
    )
    for dims in EXTENTS
    for batched in (True, False)
    for name, channels, size, biased, kwargs in (
        ("plain", 5, 3, False, {}),
        ("bias", 5, 3, True, {}),
        ("stride", 3, 2, True, {"stride": 2}),
        ("padding", 3, 3, True, {"padding": 1}),
        ("output-padding", 3, 3, True, {"stride": 3, "padding": 1, "output_padding": 2}),
        ("groups", 3, 3, True, {"groups": 2}),
        ("depthwise", 1, 3, False, {"groups": 4, "stride": 2}),
        ("dilation", 2, 2, True, {"dilation": 3, "output_padding": 2}),
    )
]
CORNERS = [
    Case(
        "conv-transpose1d-worked",
        "conv_transpose1d",
        (T(values=[[[1, 2]]]), T(values=[[[1, 10, 100]]])),
        expected=[[[1, 12, 120, 200]]],
    ),
    case("conv-transpose2d-value-an-axis", "conv_transpose2d", x(2), weight(2, 4, 3), bias(3), (2, 3), (1, 0), (1, 2)),
    case(
        "conv-transpose3d-value-an-axis",
        "conv_transpose3d",
        x(3),
        weight(3, 4, 2, size=2),
        None,
        (1, 2, 3),
        0,
        (0, 1, 2),
    ),
    case("conv-transpose2d-upsamples", "conv_transpose2d", T((1, 8, 8, 8)), weight(2, 8, 4, size=4), bias(4), 2, 1),
    case("conv-transpose1d-stride-1024", "conv_transpose1d", T((2, 1, 5)), weight(1, 1, 1), None, 1024, 0, 1023),
    case("conv-transpose1d-wide", "conv_transpose1d", T((2, 1, 300)), weight(1, 1, 1), None, 1000),
    case(
        "conv-transpose1d-wide-bfloat16",
        "conv_transpose1d",
        T((1, 1, 300), "bfloat16"),
        weight(1, 1, 1, dtype="bfloat16"),
        None,
        1000,
        dtype="bfloat16",
    ),
]
DTYPES = [
    case(
        f"conv-transpose{dims}d-{dtype}",
        f"conv_transpose{dims}d",
        x(dims, dtype=dtype),
        weight(dims, 4, 3, dtype=dtype),
        bias(3, dtype),
        dtype=dtype,
        stride=2,
    )
    for dims in EXTENTS
    for dtype in ("float64", "float16", "bfloat16", "int64")
]
EMPTY = [
    case(
        f"conv-transpose{dims}d-empty-batch",
        f"conv_transpose{dims}d",
        T((0, 4, *EXTENTS[dims])),
        weight(dims, 4, 5),
        bias(5),
    )
    for dims in EXTENTS
]
CASES: list[Case] = TRANSPOSED + CORNERS + DTYPES + EMPTY

WT = weight(2, 4, 6)
BAD: list[Bad] = [
    *(
        Bad(f"conv-transpose2d-{field}-{value}", "conv_transpose2d", (x(2), WT), field, {field: value})
        for field in ("stride", "dilation", "groups")
        for value in (0, -1, *HUGE)
    ),
    *(
        Bad(f"conv-transpose3d-{field}-{value}", "conv_transpose3d", (x(3), weight(3, 4, 2)), field, {field: value})
        for field in ("padding", "output_padding")
        for value in (-1, 100, *HUGE)
    ),
    Bad("conv-transpose2d-stride-1025", "conv_transpose2d", (x(2), WT), "stride", {"stride": 1025}),
    Bad(
        "conv-transpose2d-three-output-paddings",
        "conv_transpose2d",
        (x(2), WT),
        "output_padding",
        {"output_padding": (0, 0, 0)},
    ),
    Bad("conv-transpose2d-int32", "conv_transpose2d", (x(2, dtype="int32"), weight(2, 4, 6, dtype="int32")), "input"),
    Bad("conv-transpose2d-weight-of-other-channels", "conv_transpose2d", (x(2), weight(2, 6, 4)), "weight"),
    Bad("conv-transpose2d-weight-rank-3", "conv_transpose2d", (x(2), T((4, 6, 3))), "weight"),
    Bad("conv-transpose2d-weight-no-output", "conv_transpose2d", (x(2), T((4, 0, 3, 3))), "weight"),
    Bad("conv-transpose2d-weight-float64", "conv_transpose2d", (x(2), weight(2, 4, 6, dtype="float64")), "weight"),
    Bad("conv-transpose2d-groups", "conv_transpose2d", (x(2), WT), "groups", {"groups": 3}),
    Bad("conv-transpose2d-bias-of-one-group", "conv_transpose2d", (x(2), WT, bias(6)), "bias", {"groups": 2}),
    Bad(
        "conv-transpose1d-output-padding-is-stride",
        "conv_transpose1d",
        (x(1), weight(1, 4, 2)),
        "output_padding",
        {"stride": 2, "output_padding": 2},
    ),
    Bad(
        "conv-transpose1d-padding-takes-it-all", "conv_transpose1d", (x(1), weight(1, 4, 2)), "padding", {"padding": 7}
    ),
    Bad(
        "conv-transpose2d-huge-output",
        "conv_transpose2d",
        (T((1, 1, 64, 64)), T((1, 1, 2, 2))),
        "input",
        {"stride": 1024},
    ),
    Bad("conv-transpose1d-rank-1", "conv_transpose1d", (T((9,)), weight(1, 4, 2)), "input"),
    Bad("conv-transpose3d-no-depth", "conv_transpose3d", (T((1, 4, 0, 6, 7)), weight(3, 4, 2)), "input"),
]
