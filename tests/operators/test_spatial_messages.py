"""Messages of spatial operators that our client never sends, and equal meanings that are equal values."""

from __future__ import annotations

import pytest

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import operators_pb2 as pb
from layerwire_server.operators import OPERATORS

MESSAGES = {
    "max_pool": lambda **fields: pb.MaxPool(kernel_size=[2], **fields),
    "avg_pool": lambda **fields: pb.AvgPool(kernel_size=[2], **fields),
    "adaptive_max_pool": lambda **fields: pb.AdaptiveMaxPool(output_size=[2], **fields),
    "adaptive_avg_pool": lambda **fields: pb.AdaptiveAvgPool(output_size=[2], **fields),
    "lp_pool": lambda **fields: pb.LpPool(norm_type=2, kernel_size=[2], **fields),
    "fractional_max_pool": lambda **fields: pb.FractionalMaxPool(kernel_size=[2], output_size=[2], **fields),
    "max_unpool": lambda **fields: pb.MaxUnpool(kernel_size=[2], **fields),
    "conv": pb.Conv,
    "conv_transpose": pb.ConvTranspose,
}
OPERATOR = {name: operator for family in OPERATORS.values() for name, operator in family.items()}


def refused_field(name, message):
    with pytest.raises(InvalidArgumentError) as caught:
        OPERATOR[name].from_message(message)
    return caught.value.field


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("spatial_dims", [0, 4, 2**32 - 1])
def test_spatial_dims_are_1_to_3(name, spatial_dims):
    assert refused_field(name, MESSAGES[name](spatial_dims=spatial_dims)) == "spatial_dims"


def test_fractional_pooling_has_no_1d_form():
    assert refused_field("fractional_max_pool", MESSAGES["fractional_max_pool"](spatial_dims=1)) == "spatial_dims"


@pytest.mark.parametrize(
    ("name", "message", "field"),
    [
        ("max_pool", pb.MaxPool(spatial_dims=2), "kernel_size"),
        ("avg_pool", pb.AvgPool(spatial_dims=2, stride=[1]), "kernel_size"),
        ("avg_pool", pb.AvgPool(spatial_dims=1, kernel_size=[2], divisor_override=3), "divisor_override"),
        ("adaptive_avg_pool", pb.AdaptiveAvgPool(spatial_dims=2), "output_size"),
        ("lp_pool", pb.LpPool(spatial_dims=2, kernel_size=[2]), "norm_type"),
        ("max_unpool", pb.MaxUnpool(spatial_dims=2), "kernel_size"),
        ("conv", pb.Conv(spatial_dims=2, padding=[1], named_padding=pb.NAMED_PADDING_SAME), "padding"),
        ("conv", pb.Conv(spatial_dims=2, padding=[0], named_padding=pb.NAMED_PADDING_VALID), "padding"),
        ("conv", pb.Conv(spatial_dims=2, named_padding=7), "named_padding"),
        ("conv", pb.Conv(spatial_dims=2, groups=0), "groups"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_message_is_refused(name, message, field):
    assert refused_field(name, message) == field


@pytest.mark.parametrize(
    ("name", "left", "right"),
    [
        (
            "max_pool",
            pb.MaxPool(spatial_dims=2, kernel_size=[3]),
            pb.MaxPool(spatial_dims=2, kernel_size=[3, 3], stride=[3, 3], padding=[0], dilation=[1, 1]),
        ),
        (
            "max_pool",
            pb.MaxPool(spatial_dims=2, kernel_size=[1, 2], dilation=[5, 1]),
            pb.MaxPool(spatial_dims=2, kernel_size=[1, 2], dilation=[1, 1]),
        ),
        (
            "avg_pool",
            pb.AvgPool(spatial_dims=2, kernel_size=[2], count_include_pad=False),
            pb.AvgPool(spatial_dims=2, kernel_size=[2]),
        ),
        (
            "avg_pool",
            pb.AvgPool(spatial_dims=2, kernel_size=[2], padding=[1], divisor_override=3, count_include_pad=False),
            pb.AvgPool(spatial_dims=2, kernel_size=[2], padding=[1], divisor_override=3),
        ),
        (
            "conv",
            pb.Conv(spatial_dims=2, named_padding=pb.NAMED_PADDING_VALID),
            pb.Conv(spatial_dims=2, padding=[0, 0]),
        ),
        ("conv", pb.Conv(spatial_dims=3), pb.Conv(spatial_dims=3, stride=[1], dilation=[1, 1, 1], groups=1)),
        ("conv_transpose", pb.ConvTranspose(spatial_dims=1), pb.ConvTranspose(spatial_dims=1, output_padding=[0])),
        (
            "max_unpool",
            pb.MaxUnpool(spatial_dims=2, kernel_size=[2]),
            pb.MaxUnpool(spatial_dims=2, kernel_size=[2, 2], stride=[2], padding=[0, 0]),
        ),
    ],
    ids=["spelled-out", "gaps-in-one", "padding-flag", "divisor", "valid", "conv", "conv-transpose", "unpool"],
)
def test_equal_meaning_is_an_equal_value(name, left, right):
    first, second = OPERATOR[name].from_message(left), OPERATOR[name].from_message(right)
    assert first == second
    assert hash(first) == hash(second)


def test_counted_padding_is_another_value():
    counted, left_out = (
        OPERATOR["avg_pool"].from_message(
            pb.AvgPool(spatial_dims=2, kernel_size=[2], padding=[1], count_include_pad=flag)
        )
        for flag in (True, False)
    )
    assert counted != left_out
