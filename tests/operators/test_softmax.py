"""Rules of the kinds of softmax that the table of cases can't express: which calls share a batch, and by which axis."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import operators_pb2 as messages
from layerwire.wire.dtypes import DTYPES, ITEMSIZES, TensorSpec
from layerwire_server.operators import OPERATORS
from layerwire_server.operators.operator import FLOATS, TORCH_DTYPES, Merge, Operator
from tests.operator_cases import Case, T
from tests.operators.local import Local, same_bits

MESSAGES = {"softmax": messages.Softmax, "softmin": messages.Softmin, "log_softmax": messages.LogSoftmax}
FUNCTIONS = sorted(MESSAGES)
SHAPES = [(), (4,), (4, 5), (4, 5, 6), (4, 5, 6, 7), (2, 3, 4, 5, 6)]


@pytest.fixture(scope="module")
def local() -> Local:
    return Local()


def tensor_of(function: str, **parameters: object) -> Operator:
    return OPERATORS["activate"][function].from_message(MESSAGES[function](**parameters))


def lane(local: Local, function: str, shape: tuple[int, ...], of: str = "float32", **parameters: object) -> object:
    return local.decode(Case("", function, (T(shape, of),), parameters)).key


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{len(shape)}d")
def test_axis_not_given_is_torchs(function: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        expected = getattr(F, function)(x)
    assert same_bits(tensor_of(function).run(x)[0], expected)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("shape", SHAPES[1:], ids=lambda shape: f"{len(shape)}d")
def test_axis_not_given_shares_the_lane_of_the_same_axis_given(
    local: Local, function: str, shape: tuple[int, ...]
) -> None:
    chosen = 0 if len(shape) in (1, 3) else 1
    assert lane(local, function, shape) is lane(local, function, shape, dim=chosen)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("parameters", [{}, {"dim": 0}, {"dim": -3}], ids=str)
def test_rows_are_never_cut_along_the_axis(local: Local, function: str, parameters: dict[str, int]) -> None:
    """Along axis 0 a whole input is one row: two of them stand beside each other, not in one sum."""
    calls = [local.decode(Case("", function, (T((3, 4, 5), seed=seed),), parameters)) for seed in (1, 2)]
    assert calls[0].key is calls[1].key
    assert [call.rows for call in calls] == [1, 1]
    for seed, got in zip((1, 2), local.run(calls), strict=True):
        torch.testing.assert_close(got[0], getattr(F, function)(T((3, 4, 5), seed=seed).make(), 0))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_casts_to_other_dtypes_are_other_lanes_and_one_to_its_own_is_none(local: Local, function: str) -> None:
    lanes = {
        (source, target): lane(local, function, (3, 4), source, dim=1, dtype=getattr(torch, target))
        for source, target in itertools.product(("float32", "float16", "int8"), ("float32", "float64", "float16"))
    }
    assert len(set(lanes.values())) == 9
    for dtype in ("float32", "float16"):
        assert lanes[dtype, dtype] is lane(local, function, (3, 4), dtype, dim=1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_casts_take_what_torch_takes(function: str) -> None:
    for target in FLOATS:
        taken = set()
        for wire, dtype in TORCH_DTYPES.items():
            try:
                getattr(F, function)(torch.ones(2, 3).to(dtype), 1, dtype=TORCH_DTYPES[target])
            except RuntimeError:
                continue
            taken.add(wire)
        operator = tensor_of(function, dim=1, dtype=target)
        assert operator.dtypes_on("cpu") == taken
        for wire in taken:
            assert operator.output_bytes_bound((TensorSpec(wire, (2, 3)),)) == 6 * ITEMSIZES[target]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("dtype", [*(DTYPES[name] for name in ("int8", "int64", "bool")), 11, 99, -1, 2**31 - 1])
def test_what_is_no_float_is_no_dtype_to_cast_to(function: str, dtype: int) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        tensor_of(function, dtype=dtype)
    assert caught.value.field == "dtype"


def test_scalar_without_an_axis_is_alone() -> None:
    operator = tensor_of("softmax")
    assert operator.placement((TensorSpec(DTYPES["float32"], ()),)).merge is Merge.ALONE
