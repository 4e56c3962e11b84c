"""Bounds on bytes and work that calls are refused by, and kernels that are kept from their deaths."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire_server.operators.convolve import Conv, ConvTranspose
from layerwire_server.operators.pool import AdaptiveAvgPool, AdaptiveMaxPool
from layerwire_server.operators.unpool import MaxUnpool
from tests.cases import convolve, pool, unpool
from tests.operators.local import Local

FLOAT32, FLOAT64 = DTYPES["float32"], DTYPES["float64"]
ROWS = [*pool.CASES, *unpool.CASES, *convolve.CASES]


@pytest.fixture(scope="module")
def local() -> Local:
    return Local()


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.id)
def test_bound_holds(local, case):
    plan = local.decode(case).plan
    bound = plan.operator.output_bytes_bound(plan.specs)
    nbytes = sum(spec.nbytes for spec in plan.outputs)
    assert nbytes <= bound
    if plan.operator.family != "convolve" and 0 not in plan.specs[0].shape:
        assert nbytes == bound
    assert plan.operator.operations(plan.specs, plan.outputs) >= 0


@pytest.mark.parametrize(
    ("operator", "specs"),
    [
        (AdaptiveAvgPool((10**9,)), (TensorSpec(FLOAT32, (1, 1, 1)),)),
        (AdaptiveMaxPool((2**31 - 1,) * 3, True), (TensorSpec(FLOAT32, (0, 1, 1, 1, 1)),)),
        (MaxUnpool((2**31 - 1,), (1,), (0,), None), (TensorSpec(FLOAT32, (0, 1, 1)), TensorSpec(8, (0, 1, 1)))),
    ],
    ids=["adaptive", "adaptive-empty-batch", "unpool-empty-batch"],
)
def test_huge_output_is_foreseen(operator, specs):
    operator.check(specs)
    assert operator.output_bytes_bound(specs) > 2**31


def test_work_of_adaptive_pooling_is_exact():
    for extent in range(1, 12):
        for size in range(1, 16):
            windows = sum(-(-(i + 1) * extent // size) - i * extent // size for i in range(size))
            operator, spec = AdaptiveAvgPool((size,)), TensorSpec(FLOAT32, (2, 3, extent))
            assert operator.operations((spec,), operator.infer((spec,))) == 6 * windows


def conv(dims, **fields):
    ones = (1,) * dims
    return Conv(**{"stride": ones, "dilation": ones, "groups": 1, "padding": (0,) * dims, **fields})


def conv_transpose(dims, **fields):
    ones, zeros = (1,) * dims, (0,) * dims
    defaults = {"stride": ones, "dilation": ones, "groups": 1, "padding": zeros, "output_padding": zeros}
    return ConvTranspose(**{**defaults, **fields})


@pytest.mark.parametrize(
    ("dtype", "shape", "columns"),
    [
        (FLOAT64, (8, 3, 30, 30), 8 * 3 * 9 * 28 * 28 * 8),  # all samples' at once
        (FLOAT32, (1, 3, 30, 30), 3 * 9 * 28 * 28 * 4),  # a single small sample leaves oneDNN
        (FLOAT32, (1, 3, 90, 90), 0),
    ],
    ids=["float64", "float32-small", "float32"],
)
def test_columns_count(dtype, shape, columns):
    specs = (TensorSpec(dtype, shape), TensorSpec(dtype, (5, 3, 3, 3)), None)
    (output,) = conv(2).infer(specs)
    assert conv(2).output_bytes_bound(specs) == output.nbytes + columns


@pytest.mark.parametrize(("extent", "stride"), [(400, 1000), (20_000, 7)], ids=["large-stride", "wide"])
def test_transposed_convolution_leaves_onednn(extent, stride):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, extent, generator=generator), torch.randn(3, 2, 5, generator=generator)
    operator = conv_transpose(1, stride=(stride,))
    (got,) = operator.run(x, weight, None)
    exact = F.conv_transpose1d(x.double(), weight.double(), stride=stride)
    assert got.dtype == torch.float32
    assert torch.equal(got, exact.float())  # oneDNN's float32 sums differ in the last bits
    specs = (TensorSpec(FLOAT32, tuple(x.shape)), TensorSpec(FLOAT32, tuple(weight.shape)), None)
    assert operator.output_bytes_bound(specs) >= got.nbytes + exact.nbytes


def test_output_of_transposed_convolution_is_work():
    operator = conv_transpose(2, stride=(1000, 1000))
    specs = (TensorSpec(FLOAT32, (1, 1, 10, 10)), TensorSpec(FLOAT32, (1, 1, 1, 1)), None)
    assert operator.operations(specs, operator.infer(specs)) >= math.prod((9001, 9001))
