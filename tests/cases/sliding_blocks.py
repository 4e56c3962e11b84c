"""Rows of unfold and fold: worked examples, every parameter and corner, and what is refused."""

from __future__ import annotations

from tests.cases.kernels import HUGE
from tests.operator_cases import Bad, Case, T

DTYPES = ("float64", "float16", "bfloat16", "bool")
X = T((2, 3, 7, 6))  # unfold's input

# kernel_size and more -> places that the block takes in [7, 6]
PARAMETERS = {
    "plain": ({"kernel_size": 2}, (6, 5)),
    "1x1": ({"kernel_size": 1}, (7, 6)),
    "one-element-dilated": ({"kernel_size": 1, "dilation": 2**31 - 1}, (7, 6)),
    "value-an-axis": ({"kernel_size": (2, 3)}, (6, 4)),
    "dilation": ({"kernel_size": 3, "dilation": 2}, (3, 2)),
    "dilation-an-axis": ({"kernel_size": 2, "dilation": (3, 4)}, (4, 2)),
    "padding": ({"kernel_size": 2, "padding": 1}, (8, 7)),
    "padding-past-block": ({"kernel_size": 2, "padding": (5, 0)}, (16, 5)),
    "stride": ({"kernel_size": 2, "stride": 2}, (3, 3)),
    "gaps": ({"kernel_size": 2, "stride": 3}, (2, 2)),
    "stride-past-input": ({"kernel_size": 2, "stride": 2**31 - 1}, (1, 1)),
    "all": ({"kernel_size": (3, 2), "dilation": (2, 1), "padding": (1, 2), "stride": (2, 3)}, (3, 3)),
    "block-is-input": ({"kernel_size": (7, 6)}, (1, 1)),
    "block-past-input": ({"kernel_size": 9, "padding": 2}, (3, 2)),
}


def case(name, function, *args, **kwargs):
    return Case(name, function, args, kwargs)


def columns(kernel_size, places, batched=True, channels=3, dtype="float32", values="normal"):
    """fold's input: as many columns as there are places."""
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    shape = (channels * height * width, places[0] * places[1])
    return T((2, *shape) if batched else shape, dtype, values)


WORKED = [
    Case(
        "unfold-worked",
        "unfold",
        (T(values=[[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]]]), 2),
        expected=[[[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]]],
    ),
    Case(
        "fold-worked",
        "fold",
        (T(values=[[[1.0, 1.0, 1.0, 1.0]] * 4]), 3, 2),
        expected=[[[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]],
    ),
]
UNFOLD = [
    case(
        f"unfold-{'batched' if batched else 'unbatched'}-{name}", "unfold", X if batched else T((3, 7, 6)), **parameters
    )
    for batched in (True, False)
    for name, (parameters, _) in PARAMETERS.items()
]
FOLD = [
    case(
        f"fold-{'batched' if batched else 'unbatched'}-{name}",
        "fold",
        columns(parameters["kernel_size"], places, batched),
        (7, 6),
        **parameters,
    )
    for batched in (True, False)
    for name, (parameters, places) in PARAMETERS.items()
]
CORNERS = [
    *(case(f"unfold-{dtype}", "unfold", T((2, 3, 7, 6), dtype), 3, 1, 1, 2) for dtype in DTYPES),
    *(case(f"fold-{dtype}", "fold", columns(3, (4, 3), dtype=dtype), (7, 6), 3, 1, 1, 2) for dtype in DTYPES),
    case("unfold-special", "unfold", T((2, 3, 7, 6), values="special"), 3, padding=1),
    case("fold-special", "fold", columns(3, (5, 4), values="special"), (7, 6), 3),
    case("unfold-empty-batch", "unfold", T((0, 3, 7, 6)), 2),
    case("fold-empty-batch", "fold", T((0, 12, 30)), (7, 6), 2),
    case("fold-square", "fold", T((1, 4, 16)), 5, 2),
    case("fold-larger-than-its-blocks", "fold", T((1, 4, 1)), 1000, 2, stride=2**31 - 1),
    case("unfold-image", "unfold", T((1, 3, 64, 64)), 7, padding=3, stride=2),
]
CASES: list[Case] = WORKED + UNFOLD + FOLD + CORNERS

C = T((2, 12, 30))  # fold's input, for output_size (7, 6) and kernel_size 2
BAD: list[Bad] = [
    *(
        Bad(f"unfold-{field}-{value}", "unfold", (X,), field, {"kernel_size": 2, field: value})
        for field in ("kernel_size", "dilation", "stride")
        for value in (0, -1, *HUGE)
    ),
    *(
        Bad(f"fold-{field}-{value}", "fold", (C,), field, {"output_size": (7, 6), "kernel_size": 2, field: value})
        for field in ("output_size", "kernel_size", "dilation", "stride")
        for value in (0, -1, *HUGE)
    ),
    *(Bad(f"unfold-padding-{value}", "unfold", (X, 2, 1, value), "padding") for value in (-1, 2**16 + 1, *HUGE)),
    *(Bad(f"fold-padding-{value}", "fold", (C, 6, 2, 1, value), "padding") for value in (-1, 2**16 + 1, *HUGE)),
    Bad("unfold-largest-kernel", "unfold", (X, 2**31 - 1), "kernel_size"),
    Bad("unfold-largest-dilation", "unfold", (X, 2, 2**31 - 1), "dilation"),
    Bad("unfold-three-strides", "unfold", (X, 2), "stride", {"stride": (1, 1, 1)}),
    Bad("unfold-dilation-past-input", "unfold", (X, 2, (1, 6)), "dilation"),
    Bad("unfold-rank-2", "unfold", (T((7, 6)), 2), "input"),
    Bad("unfold-rank-5", "unfold", (T((1, 1, 1, 7, 6)), 2), "input"),
    Bad("unfold-no-channels", "unfold", (T((2, 0, 7, 6)), 2), "input"),
    Bad("unfold-no-width", "unfold", (T((2, 3, 7, 0)), 2, 1, 3), "input"),
    Bad("unfold-int64", "unfold", (T((2, 3, 7, 6), "int64"), 2), "input"),
    Bad("unfold-huge-output", "unfold", (X, 2, 1, 65536), "input"),
    Bad("unfold-huge-output-of-no-sample", "unfold", (T((0, 3, 7, 6)), 2, 1, 65536), "input"),
    Bad("fold-largest-output", "fold", (T((1, 4, 1)), 2**31 - 1, 2, 1, 0, 2**31 - 1), "input"),
    Bad("fold-three-sizes", "fold", (C, (7, 6, 5), 2), "output_size"),
    Bad("fold-kernel-past-output", "fold", (C, (7, 6), 8), "kernel_size"),
    Bad("fold-dilation-past-output", "fold", (C, (7, 6), 2, 6), "dilation"),
    Bad("fold-too-few-columns", "fold", (T((2, 12, 29)), (7, 6), 2), "input"),
    Bad("fold-too-many-columns", "fold", (T((2, 12, 31)), (7, 6), 2), "input"),
    Bad("fold-no-multiple-of-block", "fold", (T((2, 13, 30)), (7, 6), 2), "kernel_size"),
    Bad("fold-rank-1", "fold", (T((30,)), (7, 6), 2), "input"),
    Bad("fold-rank-4", "fold", (T((1, 2, 12, 30)), (7, 6), 2), "input"),
    Bad("fold-no-columns", "fold", (T((2, 12, 0)), (7, 6), 2), "input"),
    Bad("fold-no-channels", "fold", (T((2, 0, 30)), (7, 6), 2), "input"),
    Bad("fold-int8", "fold", (T((2, 12, 30), "int8"), (7, 6), 2), "input"),
]
