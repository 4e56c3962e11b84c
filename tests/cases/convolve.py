"""Rows of convolution: worked examples, every parameter and corner, and what is refused."""

from __future__ import annotations

import warnings

import torch.nn.functional as F

from tests.cases import convolve_tbc, convolve_transpose, sliding_blocks
from tests.cases.kernels import EXTENTS, HUGE, bias, case, weight, x
from tests.operator_cases import Bad, Case, T


def without_warning(function):
    """torch warns of a copy for padding "same" with an odd total."""

    def quiet(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return getattr(F, function)(*args, **kwargs)

    return quiet


CONV = [  # parameters -> weight's C', C / groups and kernel size, and whether there is a bias
    case(
        f"conv{dims}d-{'batched' if batched else 'unbatched'}-{name}",
        f"conv{dims}d",
        x(dims, batched),
        weight(dims, *channels, size=size),
        bias(channels[0]) if biased else None,
        **kwargs,
    )
    for dims in EXTENTS
    for batched in (True, False)
    for name, channels, size, biased, kwargs in (
        ("plain", (5, 4), 3, False, {}),
        ("bias", (5, 4), 3, True, {}),
        ("1x1", (6, 4), 1, True, {}),
        ("stride", (5, 4), 3, True, {"stride": 2}),
        ("padding", (5, 4), 3, True, {"padding": 2}),
        ("dilation", (5, 4), 2, True, {"dilation": 2}),
        ("groups", (6, 2), 3, True, {"groups": 2}),
        ("depthwise", (4, 1), 3, True, {"groups": 4, "padding": 1}),
        ("valid", (5, 4), 3, True, {"padding": "valid"}),
        ("same", (5, 4), 3, True, {"padding": "same", "dilation": 2}),
    )
]
CORNERS = [
    Case("conv1d-worked", "conv1d", (T(values=[[[1, 2, 3, 4]]]), T(values=[[[1, 0, -1]]])), expected=[[[-2, -2]]]),
    Case(
        "conv2d-worked",
        "conv2d",
        (T(values=[[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]]), T(values=[[[[1, 1], [1, 1]]]]), T(values=[0.5])),
        expected=[[[[12.5, 16.5], [24.5, 28.5]]]],
    ),
    case("conv2d-value-an-axis", "conv2d", x(2), weight(2, 5, 4), bias(5), (2, 1), (0, 2), (1, 2)),
    case("conv3d-value-an-axis", "conv3d", x(3), weight(3, 5, 4, size=2), None, (1, 2, 1), (0, 1, 2), (1, 1, 2)),
    case("conv2d-flat-kernel", "conv2d", x(2), T((5, 4, 1, 3)), bias(5), padding="same"),
    case(
        "conv2d-same-even-kernel",
        "conv2d",
        x(2),
        weight(2, 5, 4, size=2),
        reference=without_warning("conv2d"),
        padding="same",
    ),
    case(
        "conv1d-same-even-kernel",
        "conv1d",
        x(1),
        weight(1, 5, 4, size=4),
        reference=without_warning("conv1d"),
        padding="same",
    ),
    case("conv3d-same-uneven", "conv3d", x(3), T((5, 4, 2, 3, 4)), reference=without_warning("conv3d"), padding="same"),
    case("conv2d-same-kernel-past-input", "conv2d", T((1, 4, 3, 3)), weight(2, 5, 4, size=9), padding="same"),
    case("conv2d-padding-past-kernel", "conv2d", x(2), weight(2, 5, 4), padding=20),
    case("conv2d-kernel-is-input", "conv2d", x(2), T((5, 4, 9, 7)), bias(5)),
    case("conv2d-separable-depthwise-part", "conv2d", x(2, channels=8), weight(2, 8, 1), bias(8), padding=1, groups=8),
    case("conv2d-separable-pointwise-part", "conv2d", x(2, channels=8), weight(2, 16, 8, size=1), bias(16)),
    case("conv2d-depthwise-multiplier", "conv2d", x(2), weight(2, 8, 1), bias(8), padding=1, groups=4),
    case("conv1d-depthwise-strided", "conv1d", x(1), weight(1, 4, 1), None, 2, 1, groups=4),
    case("conv2d-one-sample", "conv2d", T((1, 3, 16, 16)), weight(2, 8, 3), bias(8), padding=1),
    case("conv2d-image", "conv2d", T((1, 3, 64, 64)), weight(2, 16, 3, size=7), bias(16), 2, 3),
]
DTYPES = [
    case(
        f"conv{dims}d-{dtype}",
        f"conv{dims}d",
        x(dims, dtype=dtype),
        weight(dims, 5, 4, dtype=dtype),
        bias(5, dtype),
        dtype=dtype,
        padding=1,
    )
    for dims in EXTENTS
    for dtype in ("float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8")
] + [
    case(
        "conv2d-int64-dilated",
        "conv2d",
        x(2, dtype="int64"),
        weight(2, 5, 4, dtype="int64"),
        dtype="int64",
        dilation=2,
    )
]
SPECIAL = [
    case(f"conv{dims}d-special", f"conv{dims}d", x(dims, values="special"), weight(dims, 5, 4, size=1), bias(5))
    for dims in EXTENTS
]
EMPTY = [
    case(f"conv{dims}d-empty-batch", f"conv{dims}d", T((0, 4, *EXTENTS[dims])), weight(dims, 5, 4), bias(5))
    for dims in EXTENTS
]
CASES: list[Case] = [
    *(CONV + CORNERS + DTYPES + SPECIAL + EMPTY),
    *convolve_transpose.CASES,
    *convolve_tbc.CASES,
    *sliding_blocks.CASES,
]

W = weight(2, 6, 4)
BAD: list[Bad] = [
    *(
        Bad(f"conv2d-{field}-{value}", "conv2d", (x(2), W), field, {field: value})
        for field in ("stride", "dilation", "groups")
        for value in (0, -1, *HUGE)
    ),
    *(
        Bad(f"conv1d-padding-{value}", "conv1d", (x(1), weight(1, 6, 4)), "padding", {"padding": value})
        for value in (-1, *HUGE)
    ),
    Bad("conv2d-stride-1025", "conv2d", (x(2), W), "stride", {"stride": (1, 1025)}),
    Bad("conv2d-dilation-past-input", "conv2d", (x(2), W), "dilation", {"dilation": 4}),
    Bad("conv2d-kernel-past-input", "conv2d", (x(2), weight(2, 6, 4, size=8)), "weight"),
    Bad("conv1d-kernel-past-padded-input", "conv1d", (x(1), weight(1, 6, 4, size=14)), "weight", {"padding": 1}),
    Bad("conv2d-three-strides", "conv2d", (x(2), W), "stride", {"stride": (1, 1, 1)}),
    Bad("conv1d-two-paddings", "conv1d", (x(1), weight(1, 6, 4)), "padding", {"padding": (1, 1)}),
    Bad("conv3d-two-dilations", "conv3d", (x(3), weight(3, 6, 4)), "dilation", {"dilation": (1, 1)}),
    Bad("conv2d-same-strided", "conv2d", (x(2), W), "stride", {"padding": "same", "stride": 2}),
    Bad(
        "conv1d-same-too-wide",
        "conv1d",
        (x(1), weight(1, 6, 4)),
        "dilation",
        {"padding": "same", "dilation": 2**16 + 1},
    ),
    Bad(
        "conv1d-same-pads-too-much",
        "conv1d",
        (x(1), weight(1, 6, 4, size=5)),
        "dilation",
        {"padding": "same", "dilation": 2**16},
    ),
    Bad("conv2d-groups-not-of-input", "conv2d", (x(2), weight(2, 6, 1)), "groups", {"groups": 3}),
    Bad("conv2d-groups-not-of-output", "conv2d", (x(2), weight(2, 5, 2)), "groups", {"groups": 2}),
    Bad("conv2d-weight-of-other-channels", "conv2d", (x(2), weight(2, 6, 3)), "weight"),
    Bad("conv2d-weight-of-all-channels", "conv2d", (x(2), W), "weight", {"groups": 2}),
    Bad("conv2d-weight-rank-3", "conv2d", (x(2), T((6, 4, 3))), "weight"),
    Bad("conv2d-weight-rank-5", "conv2d", (x(2), T((6, 4, 3, 3, 3))), "weight"),
    Bad("conv2d-weight-no-width", "conv2d", (x(2), T((6, 4, 3, 0))), "weight"),
    Bad("conv2d-weight-no-output", "conv2d", (x(2), T((0, 4, 3, 3))), "weight"),
    Bad("conv2d-weight-float64", "conv2d", (x(2), weight(2, 6, 4, dtype="float64")), "weight"),
    Bad("conv2d-bias-float16", "conv2d", (x(2), W, bias(6, "float16")), "bias"),
    Bad("conv2d-bias-too-long", "conv2d", (x(2), W, bias(7)), "bias"),
    Bad("conv2d-bias-rank-2", "conv2d", (x(2), W, T((1, 6))), "bias"),
    Bad("conv2d-rank-2", "conv2d", (T((9, 7)), W), "input"),
    Bad("conv1d-rank-4", "conv1d", (T((1, 4, 9, 7)), weight(1, 6, 4)), "input"),
    Bad("conv3d-rank-3", "conv3d", (T((4, 9, 7)), weight(3, 6, 4)), "input"),
    Bad("conv2d-no-channels", "conv2d", (T((2, 0, 9, 7)), T((6, 0, 3, 3))), "input"),
    Bad("conv2d-no-width", "conv2d", (T((2, 4, 9, 0)), W), "input", {"padding": 2}),
    Bad("conv2d-bool", "conv2d", (x(2, dtype="bool"), weight(2, 6, 4, dtype="bool")), "input"),
    Bad("conv2d-int8-dilated", "conv2d", (x(2, dtype="int8"), weight(2, 6, 4, dtype="int8")), "input", {"dilation": 2}),
    Bad("conv1d-huge-columns", "conv1d", (T((1, 1, 20000)), T((1, 1, 20000))), "input", {"padding": 20000}),
    Bad("conv2d-huge-output", "conv2d", (x(2), weight(2, 6, 4)), "input", {"padding": 65536}),
    *convolve_transpose.BAD,
    *convolve_tbc.BAD,
    *sliding_blocks.BAD,
]
