"""Rows of pooling: worked examples, every parameter and corner, and what must be refused."""

from __future__ import annotations

import math

from tests.cases import pool_adaptive
from tests.cases.planes import EXTENTS, FLOATS, HUGE, INTEGERS, literal, x
from tests.operator_cases import Bad, Case, T

GRID = [[[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]]]
SCORES = [[[[1, 3, 2, 4], [5, 6, 8, 7], [4, 2, 1, 0], [9, 7, 3, 2]]]]
WORKED = [
    Case("max-1-to-16", "max_pool2d", (literal(GRID), 2), expected=[[[[6, 8], [14, 16]]]]),
    Case("avg-1-to-16", "avg_pool2d", (literal(GRID), 2), expected=[[[[3.5, 5.5], [11.5, 13.5]]]]),
    Case("max-scores", "max_pool2d", (literal(SCORES), 2), expected=[[[[6, 8], [9, 3]]]]),
    Case(
        "max-scores-indices",
        "max_pool2d",
        (literal(SCORES), 2),
        {"return_indices": True},
        expected=[[[[6, 8], [9, 3]]]],
    ),
    Case("global-avg-scores", "adaptive_avg_pool2d", (literal(SCORES), 1), expected=[[[[4.0]]]]),
    Case("global-max-scores", "adaptive_max_pool2d", (literal(SCORES), 1), expected=[[[[9]]]]),
    Case("lp-3-4-5", "lp_pool1d", (literal([[[3.0, 4.0]]]), 2, 2), expected=[[[5.0]]]),
    Case("max-32-to-16", "max_pool2d", (T((1, 3, 32, 32)), 2), {"return_indices": True}),
]
WINDOWS = {  # corners that max and average pooling share
    "stride-1": {"stride": 1},
    "stride-past-kernel": {"stride": 4},
    "padded": {"padding": 1},
    "ceil": {"stride": 2, "ceil_mode": True},
    "ceil-padded": {"stride": 3, "padding": 1, "ceil_mode": True},
}
MAX = [
    Case(
        f"max{dims}d-{'batched' if batched else 'unbatched'}-{name}", f"max_pool{dims}d", (x(dims, batched), 3), kwargs
    )
    for dims in EXTENTS
    for batched in (True, False)
    for name, kwargs in {
        **WINDOWS,
        "dilated": {"stride": 1, "dilation": 2},
        "indices": {"return_indices": True},
        "all-with-indices": {"stride": 2, "padding": 1, "dilation": 2, "ceil_mode": True, "return_indices": True},
    }.items()
]
AVG = [
    Case(
        f"avg{dims}d-{'batched' if batched else 'unbatched'}-{name}", f"avg_pool{dims}d", (x(dims, batched), 3), kwargs
    )
    for dims in EXTENTS
    for batched in (True, False)
    for name, kwargs in {**WINDOWS, "padding-not-counted": {"padding": 1, "count_include_pad": False}}.items()
]
DIVIDED = [
    Case(f"avg{dims}d-divisor-{divisor}", f"avg_pool{dims}d", (x(dims), 2), {"divisor_override": divisor})
    for dims in (2, 3)
    for divisor in (1, 3, -2, 2**40)
]
SHAPED = [
    Case("max2d-one-value-an-axis", "max_pool2d", (x(2), (3, 2), (2, 1), (1, 0), (1, 3))),
    Case("max3d-one-value-an-axis", "max_pool3d", (x(3), (1, 2, 3), (1, 2, 1), (0, 1, 1), (1, 1, 2))),
    Case("avg2d-one-value-an-axis", "avg_pool2d", (x(2), (2, 4), (1, 3), (1, 2))),
    Case("avg3d-one-value-an-axis", "avg_pool3d", (x(3), (1, 2, 3), (2, 1, 1), (0, 1, 1), True, False)),
    Case("max1d-list", "max_pool1d", (x(1), [3], [2], [1], [2])),
    Case("max1d-window-is-input", "max_pool1d", (x(1), 9)),
    Case("max2d-ceil-window-past-end", "max_pool2d", (T((1, 1, 2, 2)), 3), {"stride": 2, "ceil_mode": True}),
    Case("max2d-no-gaps-in-one", "max_pool2d", (x(2), (1, 2)), {"dilation": (100, 1)}),
    Case("avg1d-padded-more-than-input", "avg_pool1d", (T((1, 2, 3)), 8, 1, 4)),
    Case("max1d-padded-more-than-input", "max_pool1d", (T((1, 2, 3)), 8, 1, 4), {"return_indices": True}),
    Case("max2d-default-stride-past-1024", "max_pool2d", (T((1, 1, 1, 3000)), (1, 1500))),
]
LP = [
    Case(
        f"lp{dims}d-{'batched' if batched else 'unbatched'}-{norm_type}-{name}",
        f"lp_pool{dims}d",
        (x(dims, batched, values="positive"), norm_type, 2),
        kwargs,
    )
    for dims in EXTENTS
    for batched in (True, False)
    for norm_type, name, kwargs in (
        (1.0, "plain", {}),
        (2.0, "stride-1", {"stride": 1}),
        (2.0, "ceil", {"stride": 3, "ceil_mode": True}),
        (3.0, "plain", {}),
        (-1.5, "plain", {}),
        (math.inf, "plain", {}),
    )
] + [
    Case("lp2d-negative-infinity", "lp_pool2d", (x(2), -math.inf, 2)),
    Case("lp2d-root", "lp_pool2d", (x(2, values="positive"), 0.5, (2, 3))),
    Case("lp2d-odd-power-of-negative", "lp_pool2d", (x(2), 3.0, 2)),
]
DTYPES = (
    [
        Case(f"max{dims}d-{dtype}", f"max_pool{dims}d", (x(dims, dtype=dtype), 2))
        for dims in (2, 3)
        for dtype in INTEGERS
    ]
    + [Case(f"max1d-{dtype}", "max_pool1d", (x(1, dtype=dtype), 2), {"return_indices": True}) for dtype in INTEGERS]
    + [Case(f"max2d-{dtype}-padded", "max_pool2d", (x(2, dtype=dtype), 3, 2, 1)) for dtype in ("int8", "uint8")]
    + [Case(f"avg{dims}d-int64", f"avg_pool{dims}d", (x(dims, dtype="int64"), 2)) for dims in EXTENTS]
    + [
        Case(f"{kind}{dims}d-{dtype}", f"{kind}_pool{dims}d", (x(dims, dtype=dtype), *args))
        for dims in EXTENTS
        for dtype in FLOATS[1:]
        for kind, args in (("max", (2,)), ("avg", (2,)), ("adaptive_max", (2,)), ("adaptive_avg", (2,)), ("lp", (2, 2)))
        if not (dims == 3 and kind in ("avg", "lp") and dtype in ("float16", "bfloat16"))  # torch has no CPU kernel
    ]
    + [Case("lp3d-float16-infinite", "lp_pool3d", (x(3, dtype="float16"), math.inf, 2))]
)
SPECIAL = [
    Case(f"{kind}{dims}d-special", f"{kind}_pool{dims}d", (x(dims, values="special"), *args))
    for dims in EXTENTS
    for kind, args in (("max", (2,)), ("avg", (2,)), ("adaptive_max", (2,)), ("adaptive_avg", (2,)), ("lp", (2, 2)))
] + [
    Case("max2d-nan-indices", "max_pool2d", (x(2, values="special"), 3, 1, 1), {"return_indices": True}),
    Case("max1d-all-minus-infinity", "max_pool1d", (literal([[[-math.inf] * 4]]), 2), {"return_indices": True}),
    Case("adaptive-max2d-nan-indices", "adaptive_max_pool2d", (x(2, values="special"), 3, True)),
]
EMPTY = [
    Case(f"{kind}{dims}d-empty-batch", f"{kind}_pool{dims}d", (T((0, 3, *EXTENTS[dims])), *args))
    for dims in EXTENTS
    for kind, args in (("max", (2,)), ("avg", (2,)), ("adaptive_max", (2,)), ("adaptive_avg", (2,)), ("lp", (2, 2)))
] + [
    Case("max2d-empty-batch-indices", "max_pool2d", (T((0, 3, 4, 4)), 2), {"return_indices": True}),
    Case("adaptive-avg2d-no-channels", "adaptive_avg_pool2d", (T((2, 0, 4, 4)), 2)),
    Case("adaptive-max2d-unbatched-no-channels", "adaptive_max_pool2d", (T((0, 4, 4)), 2)),
]
CASES: list[Case] = WORKED + MAX + AVG + DIVIDED + SHAPED + LP + DTYPES + SPECIAL + EMPTY + pool_adaptive.CASES

BAD_SIZES = [
    Bad(f"{function}-{field}-{value}", function, args, field, {field: value})
    for function, args, fields in (
        ("max_pool1d", (x(1),), ("kernel_size",)),
        ("max_pool2d", (x(2), 2), ("stride", "dilation")),
        ("max_pool3d", (x(3),), ("kernel_size",)),
        ("avg_pool1d", (x(1), 2), ("stride",)),
        ("avg_pool2d", (x(2),), ("kernel_size",)),
        ("lp_pool2d", (x(2), 2.0), ("kernel_size",)),
    )
    for field in fields
    for value in (0, -1, *HUGE)
]
BAD_PADDING = [
    Bad(f"{function}-padding-{value}", function, args, "padding", {"padding": value})
    for function, args in (("max_pool1d", (x(1), 3)), ("max_pool2d", (x(2), 3)), ("avg_pool3d", (x(3), 3)))
    for value in (-1, 2, *HUGE)
]
BAD_COUNTS = [
    Bad("max1d-two-kernels", "max_pool1d", (x(1), (2, 2)), "kernel_size"),
    Bad("max2d-three-kernels", "max_pool2d", (x(2), (2, 2, 2)), "kernel_size"),
    Bad("avg3d-two-strides", "avg_pool3d", (x(3), 2, (1, 1)), "stride"),
    Bad("max2d-three-paddings", "max_pool2d", (x(2), 2, 1, (0, 0, 0)), "padding"),
    Bad("max3d-two-dilations", "max_pool3d", (x(3), 2), "dilation", {"dilation": (1, 1)}),
    Bad("adaptive-avg2d-three-sizes", "adaptive_avg_pool2d", (x(2), (1, 1, 1)), "output_size"),
    Bad("max2d-one-of-two-is-0", "max_pool2d", (x(2), (0, 2)), "kernel_size"),
]
BAD_GEOMETRY = [
    Bad("max1d-kernel-past-input", "max_pool1d", (x(1), 10), "kernel_size"),
    Bad("max2d-kernel-past-padded-input", "max_pool2d", (T((1, 1, 2, 2)), 8, 1, 2), "kernel_size"),
    Bad("max2d-dilated-kernel-past-input", "max_pool2d", (x(2), 2, 1, 0, 9), "dilation"),
    Bad("max1d-stride-1025", "max_pool1d", (x(1), 2, 1025), "stride"),
    Bad("max1d-window-in-padding", "max_pool1d", (T((1, 1, 1)), 2, 2, 1, 2, True, True), "padding"),
    Bad("max2d-window-in-padding", "max_pool2d", (T((1, 1, 1, 4)), 2, 1, 1, 2), "padding"),
    Bad("max3d-window-in-padding", "max_pool3d", (T((1, 1, 4, 2, 4)), 2, 1, 1, (1, 3, 1)), "padding"),
    Bad("max1d-padding-past-1024", "max_pool1d", (T((1, 1, 5000)), 4000, 1, 1025), "padding"),
    Bad("avg3d-kernel-past-unpadded-input", "avg_pool3d", (T((1, 1, 3, 3, 3)), 4, 1, 1), "kernel_size"),
    Bad("lp3d-ceil-kernel-past-input", "lp_pool3d", (T((1, 1, 3, 3, 3)), 2.0, 4, 2, True), "kernel_size"),
    Bad("lp1d-kernel-past-input", "lp_pool1d", (x(1), 2.0, 10), "kernel_size"),
]
BAD_INPUT = [
    Bad("max1d-rank-1", "max_pool1d", (T((9,)), 2), "input"),
    Bad("max2d-rank-2", "max_pool2d", (T((9, 9)), 2), "input"),
    Bad("max2d-rank-5", "max_pool2d", (T((1, 1, 9, 9, 9)), 2), "input"),
    Bad("avg3d-scalar", "avg_pool3d", (T(()), 2), "input"),
    Bad("adaptive-avg1d-rank-4", "adaptive_avg_pool1d", (T((1, 1, 1, 4)), 2), "input"),
    Bad("lp2d-rank-6", "lp_pool2d", (T((1, 1, 1, 1, 4, 4)), 2.0, 2), "input"),
    Bad("max2d-no-channels", "max_pool2d", (T((2, 0, 4, 4)), 2), "input"),
    Bad("max2d-no-width", "max_pool2d", (T((2, 1, 4, 0)), 2), "input"),
    Bad("avg1d-unbatched-no-channels", "avg_pool1d", (T((0, 4)), 2), "input"),
    Bad("adaptive-max3d-no-depth", "adaptive_max_pool3d", (T((1, 1, 0, 4, 4)), 2), "input"),
    Bad("adaptive-avg3d-no-channels", "adaptive_avg_pool3d", (T((1, 0, 4, 4, 4)), 2), "input"),
    Bad("max2d-huge-empty", "max_pool2d", (T((0, 1, 2**40, 1)), (2, 1)), "input"),
    Bad("max2d-bool", "max_pool2d", (x(2, dtype="bool"), 2), "input"),
    Bad("max1d-int32-without-indices", "max_pool1d", (x(1, dtype="int32"), 2), "input"),
    Bad("avg2d-int8", "avg_pool2d", (x(2, dtype="int8"), 2), "input"),
    Bad("avg3d-float16", "avg_pool3d", (x(3, dtype="float16"), 2), "input"),
    Bad("lp3d-bfloat16", "lp_pool3d", (x(3, dtype="bfloat16"), 2.0, 2), "input"),
    Bad("lp2d-int64", "lp_pool2d", (x(2, dtype="int64"), 2.0, 2), "input"),
    Bad("adaptive-avg2d-int64", "adaptive_avg_pool2d", (x(2, dtype="int64"), 1), "input"),
    Bad("adaptive-max2d-uint8", "adaptive_max_pool2d", (x(2, dtype="uint8"), 2), "input"),
]
BAD_SCALARS = [
    Bad("avg2d-divisor-0", "avg_pool2d", (x(2), 2), "divisor_override", {"divisor_override": 0}),
    Bad(
        "avg2d-int64-divisor-minus-1",
        "avg_pool2d",
        (x(2, dtype="int64"), 2),
        "divisor_override",
        {"divisor_override": -1},
    ),
    *(
        Bad(f"lp2d-norm-{norm_type}", "lp_pool2d", (x(2), norm_type, 2), "norm_type")
        for norm_type in (0.0, -0.0, math.nan, 1e300, 5e-324)
    ),
    Bad("lp2d-norm-past-float16", "lp_pool2d", (x(2, dtype="float16"), 1e5, 2), "norm_type"),
]
BAD: list[Bad] = BAD_SIZES + BAD_PADDING + BAD_COUNTS + BAD_GEOMETRY + BAD_INPUT + BAD_SCALARS + pool_adaptive.BAD
