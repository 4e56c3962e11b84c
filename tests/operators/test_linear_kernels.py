"""Products by oneDNN against torch's own: within what programs and products may differ by, and always the same bits."""

from __future__ import annotations

import gc
import math

import pytest
import torch

from layerwire_server.operators import linear_kernels
from layerwire_server.operators.linear import Linear
from layerwire_server.operators.operator import TORCH_DTYPES
from layerwire_server.worker.trials.trial import agree

if not Linear().kernels():
    pytest.skip("this build of torch has no oneDNN", allow_module_level=True)


def kernel(x, weight, bias=None):
    return Linear().kernels()["onednn"](x, weight, bias)


def operands(rows, out_features, in_features, dtype=torch.float32, *, bias=True):
    generator = torch.Generator().manual_seed(rows)
    shapes = (rows, in_features), (out_features, in_features), (out_features,)
    x, weight, vector = ((torch.randn(shape, generator=generator) * 4).to(dtype) for shape in shapes)
    return x, weight, vector if bias else None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33, 200])
@pytest.mark.parametrize("features", [(1, 1), (10, 4096), (33, 17), (512, 512), (1, 100), (120, 1)], ids=str)
def test_it_agrees_with_torch(features, rows, bias):
    x, weight, vector = operands(rows, *features, bias=bias)
    with torch.inference_mode():
        output = kernel(x, weight, vector)
        assert agree(output, Linear().run(x, weight, vector), exact=False)
        assert agree(kernel(x, weight, vector), output, exact=True)
        assert agree(kernel(x, weight.clone(), vector), output, exact=True), "in other blocks"
    assert output[0].is_contiguous()


def test_nan_and_infinities_come_where_torch_has_them():
    x, weight, bias = operands(9, 40, 70)
    x[1, 3], x[2, 5], x[3, 6], x[4] = math.nan, math.inf, -math.inf, -0.0
    weight[7] = 0.0
    with torch.inference_mode():
        assert agree(kernel(x, weight, bias), Linear().run(x, weight, bias), exact=False)


@pytest.mark.parametrize("dtype", sorted(Linear.dtypes))
def test_of_other_dtypes_it_is_torchs(dtype):
    if TORCH_DTYPES[dtype] is torch.float32:
        return
    x, weight, bias = operands(5, 4, 3, TORCH_DTYPES[dtype])
    assert agree(kernel(x, weight, bias), Linear().run(x, weight, bias), exact=True)


@pytest.mark.parametrize(
    ("x", "weight"),
    [((0, 3), (4, 3)), ((5, 0), (4, 0)), ((5, 3), (0, 3)), ((5, 3), (3,)), ((2, 5, 3), (4, 3)), ((3,), (4, 3))],
)
def test_of_other_shapes_it_is_torchs(x, weight):
    tensors = torch.randn(x), torch.randn(weight), None
    assert agree(kernel(*tensors), Linear().run(*tensors), exact=True)


def test_blocks_go_with_their_weights(monkeypatch):
    blocks = linear_kernels.Blocks()
    monkeypatch.setattr(linear_kernels, "_BLOCKS", blocks)
    x, weight, bias = operands(8, 20, 30)
    with torch.inference_mode():
        kernel(x, weight, bias)
        assert blocks.nbytes == weight.nbytes
        assert blocks.of(weight) is blocks.of(weight)
        kernel(x, weight.clone(), bias)
        gc.collect()
        assert blocks.nbytes == weight.nbytes
        del weight
        gc.collect()
        assert blocks.nbytes == 0


def test_beyond_a_limit_no_more_are_kept(monkeypatch):
    blocks = linear_kernels.Blocks()
    monkeypatch.setattr(linear_kernels, "_MOST_BYTES", 20 * 30 * 4)
    weights = [torch.randn(20, 30) for _ in range(3)]
    for weight in weights:
        blocks.of(weight)
    assert blocks.nbytes == weights[0].nbytes
    assert blocks.of(weights[0]) is blocks.of(weights[0])
    assert blocks.of(weights[1]) is not blocks.of(weights[1])
