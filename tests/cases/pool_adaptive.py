"""Rows of adaptive and fractional pooling: every parameter and corner, and what must be refused."""

from __future__ import annotations

import math

from tests.cases.planes import EXTENTS, FLOATS, HUGE, literal, x
from tests.operator_cases import Bad, Case, T

ADAPTIVE = [
    Case(f"adaptive-{kind}{dims}d-{'batched' if batched else 'unbatched'}-{name}", f"adaptive_{kind}_pool{dims}d", args)
    for dims in EXTENTS
    for batched in (True, False)
    for kind in ("max", "avg")
    for name, args in {
        "global": (x(dims, batched), 1),
        "uneven": (x(dims, batched), (4, 3, 5)[-dims:]),
        "larger": (x(dims, batched), 11),
    }.items()
] + [
    Case("adaptive-max1d-indices", "adaptive_max_pool1d", (x(1), 4, True)),
    Case("adaptive-max2d-indices", "adaptive_max_pool2d", (x(2), (4, 5), True)),
    Case("adaptive-max3d-indices", "adaptive_max_pool3d", (x(3), 2, True)),
    Case("adaptive-max2d-keeps-an-axis", "adaptive_max_pool2d", (x(2), (None, 2))),
    Case("adaptive-avg2d-keeps-an-axis", "adaptive_avg_pool2d", (x(2), (3, None))),
    Case("adaptive-avg3d-keeps-axes", "adaptive_avg_pool3d", (x(3), (None, 2, None))),
    Case("adaptive-avg2d-to-nothing", "adaptive_avg_pool2d", (x(2), (0, 2))),
    Case("adaptive-max1d-to-nothing", "adaptive_max_pool1d", (x(1), 0)),
    Case("adaptive-avg2d-large-lone-plane", "adaptive_avg_pool2d", (T((1, 1, 256, 256)), 1)),
]


def fractional(dims, batched=True, dtype="float32"):
    samples = T((2 if batched else 1, 3, dims), dtype, "uniform", seed=1)
    return x(dims, batched, dtype), {"_random_samples": samples}


FRACTIONAL = [
    Case(
        f"fractional{dims}d-{'batched' if batched else 'unbatched'}-{name}",
        f"fractional_max_pool{dims}d",
        (fractional(dims, batched)[0], kernel_size),
        {**fractional(dims, batched)[1], **kwargs},
    )
    for dims in (2, 3)
    for batched in (True, False)
    for name, kernel_size, kwargs in (
        ("size", 2, {"output_size": 3}),
        ("size-an-axis", (1, 2, 2)[-dims:], {"output_size": (2, 3, 4)[-dims:]}),
        ("ratio", 2, {"output_ratio": (0.5, 0.5, 0.5)[:dims]}),
        ("indices", 2, {"output_size": 3, "return_indices": True}),
        ("to-one", 2, {"output_size": 1}),
    )
] + [
    Case(f"fractional2d-{dtype}", "fractional_max_pool2d", (x(2, dtype=dtype), 2, 4), fractional(2, dtype=dtype)[1])
    for dtype in FLOATS
]
FRACTIONAL += [
    Case(
        "fractional2d-empty-batch", "fractional_max_pool2d", (T((0, 3, 4, 4)), 2, 2), {"_random_samples": T((0, 3, 2))}
    ),
]
CASES: list[Case] = ADAPTIVE + FRACTIONAL

BAD_OUTPUT = [
    Bad(f"{function}-to-{value}", function, (x(dims), value), field)
    for function, dims in (("adaptive_max_pool1d", 1), ("adaptive_avg_pool2d", 2), ("adaptive_avg_pool3d", 3))
    for value, field in ((-2, "output_size"), *((value, "output_size") for value in HUGE), (2**31 - 1, "input"))
]
BAD_FRACTIONAL = [
    Bad("fractional2d-no-samples", "fractional_max_pool2d", (x(2), 2, 3), "samples"),
    *(
        Bad(f"fractional2d-{name}", "fractional_max_pool2d", (x(2), 2, 3), "samples", {"_random_samples": samples})
        for name, samples in {
            "samples-of-3": T((2, 3, 3), values="uniform"),
            "samples-of-1-sample": T((1, 3, 2), values="uniform"),
            "samples-of-4-channels": T((2, 4, 2), values="uniform"),
            "samples-rank-2": T((3, 2), values="uniform"),
            "samples-float64": T((2, 3, 2), "float64", "uniform"),
        }.items()
    ),
    *(
        Bad(
            f"fractional{dims}d-sample-{sample}",
            f"fractional_max_pool{dims}d",
            (T((1, 1, 5, 5, 5)[: dims + 2]), 2, 3),
            "samples",
            {"_random_samples": literal([[[0.5] * (dims - 1) + [sample]]])},
        )
        for dims in (2, 3)
        for sample in (1.0, -0.25, 1e30, -3e9, math.nan, math.inf)
    ),
    Bad(
        "fractional2d-bfloat16-rounds-out-of-input",
        "fractional_max_pool2d",
        (T((1, 1, 200, 1), "bfloat16"), 1, (199, 1)),
        "samples",
        {"_random_samples": literal([[[0.0, 0.5]]], "bfloat16")},
    ),
    *(
        Bad(f"fractional2d-{name}", "fractional_max_pool2d", (x(2), kernel_size), field, {**fractional(2)[1], **kwargs})
        for name, kernel_size, field, kwargs in (
            ("kernel-past-input", 8, "kernel_size", {"output_size": 1}),
            ("kernel-0", 0, "kernel_size", {"output_size": 1}),
            ("size-past-input", 2, "output_size", {"output_size": (9, 2)}),
            ("neither", 2, "output_size", {}),
            ("three-ratios", 2, "output_ratio", {"output_ratio": (0.5, 0.5, 0.5)}),
            *((f"size-{value}", 2, "output_size", {"output_size": value}) for value in (0, -1, *HUGE)),
            ("both", 2, "output_ratio", {"output_size": 2, "output_ratio": 0.5}),
            ("ratio-0", 2, "output_ratio", {"output_ratio": 0.0}),
            ("ratio-1", 2, "output_ratio", {"output_ratio": 1.0}),
            ("ratio-negative", 2, "output_ratio", {"output_ratio": -0.5}),
            ("ratio-nan", 2, "output_ratio", {"output_ratio": math.nan}),
            ("ratio-too-large", 3, "output_ratio", {"output_ratio": 0.95}),
            ("ratio-to-nothing", 2, "output_ratio", {"output_ratio": 0.01}),
        )
    ),
    Bad("fractional3d-size-to-the-end", "fractional_max_pool3d", (x(3), 2, 4), "output_size", fractional(3)[1]),
    Bad(
        "fractional2d-no-channels",
        "fractional_max_pool2d",
        (T((0, 4, 4)), 2, 2),
        "input",
        {"_random_samples": T((1, 0, 2))},
    ),
    Bad(
        "fractional2d-int32",
        "fractional_max_pool2d",
        (x(2, dtype="int32"), 2, 2),
        "input",
        {"_random_samples": T((2, 3, 2), "int32")},
    ),
]
BAD: list[Bad] = BAD_OUTPUT + BAD_FRACTIONAL
