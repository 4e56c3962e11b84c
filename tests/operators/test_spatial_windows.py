"""Sliding windows against an oracle that walks every place: how many, which hold nothing, what work they are."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
import torch.nn.functional as F

from layerwire.errors import InvalidArgumentError
from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire_server.operators.pool import MaxPool
from layerwire_server.operators.unpool import MaxUnpool
from layerwire_server.operators.window import Window

FLOAT32 = DTYPES["float32"]
AXES = [  # extent, kernel_size, stride, padding, dilation, ceil_mode: everything small
    axis
    for axis in itertools.product(range(1, 6), range(1, 6), (1, 2, 3), range(3), range(1, 5), (False, True))
    if axis[3] <= axis[1] // 2
]


def pool_of(kernel_size, stride, padding, dilation, ceil_mode):
    """A 1-d pool as its message would make it: gaps in a window of one are none."""
    window = Window((kernel_size,), (stride,), (padding,), (1 if kernel_size == 1 else dilation,), ceil_mode)
    return MaxPool(window, return_indices=True)


def window_sizes(extent, kernel_size, stride, padding, dilation, count):
    """Elements of the input in each window."""
    return [
        sum(0 <= place * stride - padding + step * dilation < extent for step in range(kernel_size))
        for place in range(count)
    ]


def test_what_is_accepted_is_what_torch_computes():
    accepted = 0
    for extent, *parameters in AXES:
        pool = pool_of(*parameters)
        kernel_size, stride, padding, dilation, ceil_mode = parameters
        try:
            pool.check((TensorSpec(FLOAT32, (1, 1, extent)),))
            checked = True
        except InvalidArgumentError:
            checked = False
        try:
            values, indices = F.max_pool1d(
                torch.ones(1, 1, extent), kernel_size, stride, padding, dilation, ceil_mode, return_indices=True
            )
        except RuntimeError:
            assert not checked, (extent, parameters)
            continue
        whole = bool((values == 1).all() and (indices < extent).all())
        assert checked == whole, (extent, parameters)
        if checked:
            accepted += 1
            counts = window_sizes(extent, kernel_size, stride, padding, dilation, values.shape[-1])
            assert pool.window.places((extent,)) == (values.shape[-1],)
            assert min(counts) > 0
            assert sum(counts) / 3 <= pool.window.elements((extent,)) <= sum(counts) * 3
    assert accepted > 300


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_indices_of_an_accepted_pool_can_be_unpooled(dims):
    draw = random.Random(dims)
    chained = 0
    while chained < 60:
        axes = [draw.choice(AXES) for _ in range(dims)]
        extents, kernel_size, stride, padding, dilation, _ = zip(*axes, strict=True)
        dilation = tuple(1 if kernel == 1 else gap for kernel, gap in zip(kernel_size, dilation, strict=True))
        pool = MaxPool(Window(kernel_size, stride, padding, dilation, draw.random() < 0.5), return_indices=True)
        spec = TensorSpec(FLOAT32, (2, 2, *extents))
        try:
            pool.check((spec,))
        except InvalidArgumentError:
            continue
        values, indices = pool.run(torch.randn(spec.shape))
        unpool = MaxUnpool((1,) * dims, (1,) * dims, (0,) * dims, extents)
        unpool.check_values((values, indices))
        assert unpool.run(values, indices)[0].shape == spec.shape
        chained += 1


def test_no_window_is_walked_through_huge_padding():
    window = Window((2**31 - 1,), (1,), (0,), (1,), ceil_mode=False)
    with pytest.raises(InvalidArgumentError):
        window.check(MaxPool(window, return_indices=False), (math.prod((1024, 1024)),))
