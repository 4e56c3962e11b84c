"""Rows of unpooling: back where max pooling took them, every parameter and corner, and attacks by index."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.operator_cases import Bad, Case, T

EXTENTS = {1: (8,), 2: (8, 6), 3: (4, 6, 4)}
HUGE = (2**31, 2**32 + 3, 2**62, 2**63 - 1)


def max_pool(shape, dims, kernel_size=2, stride=None, padding=0, dtype="float32", values="normal"):
    """An input and indices as max pooling of that shape gives them."""
    pool = getattr(F, f"max_pool{dims}d")
    source = T(tuple(shape)).make()
    indices = pool(source, kernel_size, stride, padding, return_indices=True)[1]
    return T(tuple(indices.shape), dtype, values), T(dtype="int64", values=indices.tolist())


def input_of(dims, batched=True):
    return ((2, 3) if batched else (3,)) + EXTENTS[dims]


def spread(shape, plane):
    """Indices that differ within a plane and are in no order."""
    count = torch.Size(shape[2:]).numel()
    plane_indices = torch.arange(count).mul(plane - 1).remainder(plane).view(shape[2:])
    return T(dtype="int64", values=plane_indices.expand(shape).tolist())


def in_order(dims):
    """max_unpool written value by value: torch's threads race for a place that is named twice."""

    def unpool(values, indices, *args, **kwargs):
        output = torch.zeros_like(getattr(F, f"max_unpool{dims}d")(values, indices, *args, **kwargs))
        for plane, row, places in zip(
            output.view(-1, output.shape[-dims:].numel()),
            values.reshape(-1, values.shape[-dims:].numel()),
            indices.reshape(-1, indices.shape[-dims:].numel()),
            strict=True,
        ):
            for value, place in zip(row, places, strict=True):
                plane[place] = value
        return output

    return unpool


PARAMETERS = {  # name -> the pooling's kernel_size, stride, padding
    "halved": (2, None, 0),
    "overlapping": (3, 1, 0),
    "gaps": (2, 3, 0),
    "padded": (3, 2, 1),
}
PLAIN = [
    Case(
        f"unpool{dims}d-{'batched' if batched else 'unbatched'}-{name}",
        f"max_unpool{dims}d",
        (*max_pool(input_of(dims, batched), dims, *parameters), *parameters),
        {"output_size": EXTENTS[dims]} if name != "halved" else {},
        reference=in_order(dims),
    )
    for dims in EXTENTS
    for batched in (True, False)
    for name, parameters in PARAMETERS.items()
    if not (dims == 3 and name == "gaps")
]
DTYPES = [
    Case(f"unpool{dims}d-{dtype}", f"max_unpool{dims}d", (*max_pool(input_of(dims), dims, dtype=dtype), 2))
    for dims in EXTENTS
    for dtype in ("float64", "float16", "bfloat16")
]
CORNERS = [
    Case("unpool-16-to-32", "max_unpool2d", (*max_pool((1, 3, 32, 32), 2), 2)),
    Case(
        "unpool-6-8-14-16",
        "max_unpool2d",
        (T(values=[[[[6, 8], [14, 16]]]]), T(dtype="int64", values=[[[[5, 7], [13, 15]]]]), 2),
        expected=[[[[0, 0, 0, 0], [0, 6, 0, 8], [0, 0, 0, 0], [0, 14, 0, 16]]]],
    ),
    Case(
        "unpool-duplicates-last-wins",
        "max_unpool2d",
        (T(values=[[[[1, 2], [3, 4]]]]), T(dtype="int64", values=[[[[0, 0], [5, 0]]]]), 2),
        reference=in_order(2),
        expected=[[[[4, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]],
    ),
    Case(
        "unpool1d-all-to-one-place",
        "max_unpool1d",
        (T(values=[[[0, 1, 2, 3]]]), T(dtype="int64", values=[[[0, 0, 0, 0]]]), 2),
        reference=in_order(1),
        expected=[[[3, 0, 0, 0, 0, 0, 0, 0]]],
    ),
    Case("unpool2d-in-no-order", "max_unpool2d", (T((2, 3, 3, 5)), spread((2, 3, 3, 5), 60), 2)),
    Case("unpool3d-in-no-order", "max_unpool3d", (T((2, 2, 2, 3, 2)), spread((2, 2, 2, 3, 2), 96), 2)),
    Case("unpool2d-special", "max_unpool2d", (*max_pool(input_of(2), 2, values="special"), 2)),
    Case("unpool1d-special", "max_unpool1d", (*max_pool(input_of(1), 1, values="special"), 2)),
    Case(
        "unpool2d-value-an-axis",
        "max_unpool2d",
        (T((1, 2, 3, 4)), spread((1, 2, 3, 4), 8 * 3), (3, 2), (2, 1), (0, 1)),
        {"output_size": (8, 3)},
    ),
    Case(
        "unpool2d-smallest-output",
        "max_unpool2d",
        (T((1, 1, 2, 2)), spread((1, 1, 2, 2), 9), 2),
        {"output_size": (3, 3)},
    ),
    Case(
        "unpool2d-largest-output",
        "max_unpool2d",
        (T((1, 1, 2, 2)), spread((1, 1, 2, 2), 25), 2),
        {"output_size": (5, 5)},
    ),
    Case("unpool1d-output", "max_unpool1d", (T((1, 2, 4)), spread((1, 2, 4), 9), 2), {"output_size": (9,)}),
    Case("unpool2d-empty-batch", "max_unpool2d", (T((0, 3, 4, 4)), T((0, 3, 4, 4), "int64"), 2)),
    Case("unpool3d-empty-batch", "max_unpool3d", (T((0, 3, 2, 2, 2)), T((0, 3, 2, 2, 2), "int64"), 2)),
    Case("unpool1d-unbatched-no-channels", "max_unpool1d", (T((0, 4)), T((0, 4), "int64"), 2)),
]
CASES: list[Case] = PLAIN + DTYPES + CORNERS


def attack(dims, index):
    """An input of 2^dims elements a plane, one of whose indices is attack; the output plane has 4^dims."""
    shape = (2, 3) + (2,) * dims
    indices = torch.zeros(shape, dtype=torch.int64)
    indices[(1, 2) + (1,) * dims] = index
    return T(shape), T(dtype="int64", values=indices.tolist()), 2


GOOD = max_pool(input_of(2), 2)
BAD: list[Bad] = [
    *(
        Bad(f"unpool{dims}d-index-{index}", f"max_unpool{dims}d", attack(dims, index), "indices")
        for dims in EXTENTS
        for index in (-1, 4**dims, 2**31, 2**32, 2**32 + 3, 2**62, 2**63 - 1, -(2**31), -(2**63))
    ),
    *(
        Bad(f"unpool2d-{field}-{value}", "max_unpool2d", (*GOOD, 2), field, {field: value})
        for field in ("stride", "output_size")
        for value in (0, -1, *HUGE)
        if (field, value) != ("output_size", 0)
    ),
    *(
        Bad(f"unpool1d-kernel-{value}", "max_unpool1d", (*max_pool(input_of(1), 1), value), "kernel_size")
        for value in (0, -1, *HUGE)
    ),
    *(
        Bad(f"unpool3d-padding-{value}", "max_unpool3d", (*max_pool(input_of(3), 3), 2), "padding", {"padding": value})
        for value in (-1, 2, *HUGE)
    ),
    Bad("unpool2d-wrapping-geometry", "max_unpool2d", (*GOOD, 2**32, 1, 2**31), "kernel_size"),
    Bad("unpool2d-stride-1025", "max_unpool2d", (*GOOD, 2, 1025), "stride"),
    Bad("unpool2d-three-kernels", "max_unpool2d", (*GOOD, (2, 2, 2)), "kernel_size"),
    Bad("unpool2d-three-sizes", "max_unpool2d", (*GOOD, 2), "output_size", {"output_size": (8, 8, 6)}),
    Bad("unpool2d-size-a-stride-below", "max_unpool2d", (*GOOD, 2), "output_size", {"output_size": (6, 6)}),
    Bad("unpool2d-size-a-stride-above", "max_unpool2d", (*GOOD, 2), "output_size", {"output_size": (8, 8)}),
    Bad(
        "unpool2d-padding-takes-it-all", "max_unpool2d", (T((1, 1, 1, 1)), T((1, 1, 1, 1), "int64"), 2, 2, 1), "padding"
    ),
    Bad("unpool2d-huge-output", "max_unpool2d", (*GOOD, 2**30), "input"),
    Bad("unpool2d-indices-int32", "max_unpool2d", (GOOD[0], T((2, 3, 4, 3), "int32"), 2), "indices"),
    Bad("unpool2d-indices-float", "max_unpool2d", (GOOD[0], T((2, 3, 4, 3)), 2), "indices"),
    Bad("unpool2d-indices-of-other-shape", "max_unpool2d", (GOOD[0], T((2, 3, 3, 4), "int64"), 2), "indices"),
    Bad("unpool2d-indices-of-other-rank", "max_unpool2d", (GOOD[0], T((3, 4, 3), "int64"), 2), "indices"),
    Bad("unpool2d-input-int64", "max_unpool2d", (T((1, 1, 2, 2), "int64"), T((1, 1, 2, 2), "int64"), 2), "input"),
    Bad("unpool1d-input-bool", "max_unpool1d", (T((1, 1, 2), "bool"), T((1, 1, 2), "int64"), 2), "input"),
    Bad("unpool2d-rank-2", "max_unpool2d", (T((2, 2)), T((2, 2), "int64"), 2), "input"),
    Bad("unpool3d-rank-3", "max_unpool3d", (T((2, 2, 2)), T((2, 2, 2), "int64"), 2), "input"),
    Bad("unpool1d-rank-4", "max_unpool1d", (T((1, 1, 2, 2)), T((1, 1, 2, 2), "int64"), 2), "input"),
    Bad("unpool2d-no-width", "max_unpool2d", (T((1, 1, 2, 0)), T((1, 1, 2, 0), "int64"), 2), "input"),
    Bad("unpool2d-no-channels", "max_unpool2d", (T((2, 0, 2, 2)), T((2, 0, 2, 2), "int64"), 2), "input"),
]
