"""What the methods make of their arguments: requests, and errors that name what is wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from layerwire.calls import Requests
from layerwire.errors import InvalidArgumentError
from layerwire.v1 import operators_pb2 as messages

lw = Requests()


REQUESTS = {
    "max_pool": (
        lw.max_pool2d("x", 2),
        messages.PoolOperator(
            max_pool=messages.MaxPool(spatial_dims=2, kernel_size=[2], padding=[0], dilation=[1], ceil_mode=False)
        ),
        ("output",),
    ),
    "max_pool-all": (
        lw.max_pool3d("x", (1, 2, 3), [1, 1, 2], np.int64(1), torch.Size([1, 2, 3]), True, True),
        messages.PoolOperator(
            max_pool=messages.MaxPool(
                spatial_dims=3, kernel_size=[1, 2, 3], stride=[1, 1, 2], padding=[1], dilation=[1, 2, 3],
                ceil_mode=True, return_indices=True,
            )
        ),
        ("output", "indices"),
    ),
    "empty-stride": (
        lw.lp_pool1d("x", 2, 3, []),
        messages.PoolOperator(lp_pool=messages.LpPool(spatial_dims=1, norm_type=2, kernel_size=[3])),
        ("output",),
    ),
    "divisor": (
        lw.avg_pool2d("x", 2, divisor_override=3),
        messages.PoolOperator(
            avg_pool=messages.AvgPool(
                spatial_dims=2, kernel_size=[2], padding=[0], count_include_pad=True, divisor_override=3
            )
        ),
        ("output",),
    ),
    "adaptive-keeps": (
        lw.adaptive_avg_pool2d("x", (None, 7)),
        messages.PoolOperator(adaptive_avg_pool=messages.AdaptiveAvgPool(spatial_dims=2, output_size=[-1, 7])),
        ("output",),
    ),
    "adaptive-keeps-all": (
        lw.adaptive_max_pool3d("x", None, return_indices=True),
        messages.PoolOperator(
            adaptive_max_pool=messages.AdaptiveMaxPool(spatial_dims=3, output_size=[-1], return_indices=True)
        ),
        ("output", "indices"),
    ),
    "fractional": (
        lw.fractional_max_pool2d("x", 2, output_ratio=(0.5, 0.25), _random_samples="s"),
        messages.PoolOperator(
            fractional_max_pool=messages.FractionalMaxPool(spatial_dims=2, kernel_size=[2], output_ratio=[0.5, 0.25])
        ),
        ("output",),
    ),
    "unpool-whole-shape": (
        lw.max_unpool2d("x", "i", 2, output_size=(1, 3, 5, 6)),
        messages.UnpoolOperator(
            max_unpool=messages.MaxUnpool(spatial_dims=2, kernel_size=[2], padding=[0], output_size=[5, 6])
        ),
        ("output",),
    ),
    "same": (
        lw.conv2d("x", "w", padding="same", dilation=2),
        messages.ConvolveOperator(
            conv=messages.Conv(
                spatial_dims=2, stride=[1], named_padding=messages.NAMED_PADDING_SAME, dilation=[2], groups=1
            )
        ),
        ("output",),
    ),
    "transposed": (
        lw.conv_transpose1d("x", "w", None, 2, 1, 1, 3, 4),
        messages.ConvolveOperator(
            conv_transpose=messages.ConvTranspose(
                spatial_dims=1, stride=[2], padding=[1], output_padding=[1], groups=3, dilation=[4]
            )
        ),
        ("output",),
    ),
    "rms-eps": (
        lw.rms_norm("x", 4),
        messages.NormalizeOperator(rms_norm=messages.RmsNorm(normalized_shape=[4])),
        ("output",),
    ),
    "softmax-without-dim": (
        lw.softmax("x"),
        messages.ActivateOperator(softmax=messages.Softmax()),
        ("output",),
    ),
    "softmax-cast": (
        lw.softmax("x", 1, dtype="float16"),
        messages.ActivateOperator(softmax=messages.Softmax(dim=1, dtype="DATA_TYPE_FLOAT16")),
        ("output",),
    ),
    "time-batch-channels": (
        lw.conv_tbc("x", "w", "b", 2),
        messages.ConvolveOperator(conv_tbc=messages.ConvTbc(pad=2)),
        ("output",),
    ),
    "unfold": (
        lw.unfold("x", 2, 3, (4, 5), stride=6),
        messages.ConvolveOperator(
            unfold=messages.Unfold(kernel_size=[2], dilation=[3], padding=[4, 5], stride=[6])
        ),
        ("output",),
    ),
    "fold": (
        lw.fold("x", (7, 8), 2, 3, 4, 5),
        messages.ConvolveOperator(
            fold=messages.Fold(output_size=[7, 8], kernel_size=[2], dilation=[3], padding=[4], stride=[5])
        ),
        ("output",),
    ),
    "rrelu-evaluates": (
        lw.rrelu("x", seed=5),
        messages.ActivateOperator(rrelu=messages.Rrelu(lower=1 / 8, upper=1 / 3)),
        ("output",),
    ),
    "statistics": (
        lw.batch_norm("x", None, None, training=True, return_statistics=True),
        messages.NormalizeOperator(
            batch_norm=messages.BatchNorm(training=True, momentum=0.1, eps=1e-5, return_statistics=True)
        ),
        ("output", "batch_mean", "batch_var", "running_mean", "running_var"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "operator", "outputs"), REQUESTS.values(), ids=REQUESTS)
def test_request(request_, operator, outputs):
    assert request_.operator == operator
    assert request_.outputs == outputs


def test_tensors_that_are_none_are_left_out():
    assert dict(lw.linear("x", "w").tensors) == {"input": "x", "weight": "w"}
    assert dict(lw.bilinear("a", "b", "w", "c").tensors) == {"input": "a", "input2": "b", "weight": "w", "bias": "c"}
    assert dict(lw.unfold("x", 2).tensors) == dict(lw.fold("x", 2, 2).tensors) == {"input": "x"}
    assert dict(lw.batch_norm("x", "m", "v").tensors) == {"input": "x", "running_mean": "m", "running_var": "v"}


def test_draws_without_a_seed_differ_and_with_one_agree():
    seeds = {lw.rrelu("x", training=True).operator.rrelu.seed for _ in range(8)}
    assert len(seeds) == 8
    assert lw.gumbel_softmax("x", seed=2**64 - 1).operator.gumbel_softmax.seed == 2**64 - 1


WRONG_TYPES = {
    "kernel_size-string": (lambda: lw.max_pool2d("x", "2"), "max_pool2d: kernel_size must be an integer, got '2'"),
    "kernel_size-float": (lambda: lw.max_pool2d("x", 2.0), "max_pool2d: kernel_size must be an integer, got 2.0"),
    "kernel_size-none": (lambda: lw.max_pool2d("x", None), "max_pool2d: kernel_size must be an integer, got None"),
    "kernel_size-true": (lambda: lw.max_pool2d("x", True), "max_pool2d: kernel_size must be an integer, got True"),
    "kernel_size-mixed": (
        lambda: lw.max_pool2d("x", [2, None]),
        "max_pool2d: kernel_size must be an integer, got None",
    ),
    "kernel_size-set": (lambda: lw.max_pool2d("x", {2}), "max_pool2d: kernel_size must be an integer, got set"),
    "ceil_mode-1": (lambda: lw.max_pool2d("x", 2, ceil_mode=1), "max_pool2d: ceil_mode must be True or False, got int"),
    "alpha-string": (lambda: lw.elu("x", "1"), "elu: alpha must be a number, got '1'"),
    "alpha-array": (lambda: lw.elu("x", np.zeros(2)), "elu: alpha must be a number, got ndarray"),
    "alpha-none": (lambda: lw.elu("x", None), "elu: alpha must be a number, got None"),
    "approximate": (lambda: lw.gelu("x", None), "gelu: approximate must be a string, got NoneType"),
    "name": (lambda: lw.activate("x", 3), "activate: name must be a string, got int"),
}
WRONG_VALUES = {
    "kernel_size-large": (lambda: lw.max_pool2d("x", 2**63), "kernel_size"),
    "kernel_size-huge": (lambda: lw.max_pool2d("x", 10**5000), "kernel_size"),
    "kernel_size-small": (lambda: lw.max_pool2d("x", -(2**63) - 1), "kernel_size"),
    "kernel_size-empty": (lambda: lw.max_pool2d("x", ()), "kernel_size"),
    "padding-name": (lambda: lw.conv2d("x", "w", padding="full"), "padding"),
    "alpha-huge": (lambda: lw.elu("x", 10**400), "alpha"),
    "seed-negative": (lambda: lw.rrelu("x", training=True, seed=-1), "seed"),
    "seed-large": (lambda: lw.gumbel_softmax("x", seed=2**64), "seed"),
    "name-unknown": (lambda: lw.activate("x", "relu7"), "name"),
    "name-of-something-else": (lambda: lw.activate("x", "_call"), "name"),
}


@pytest.mark.parametrize(("call", "message"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_type(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(("call", "field"), WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_wrong_value_names_the_argument(call, field):
    with pytest.raises(InvalidArgumentError) as caught:
        call()
    assert caught.value.field == field
    assert isinstance(caught.value, ValueError)
    assert len(caught.value.message) < 700
