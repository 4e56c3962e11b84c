"""Dtypes of the spatial operators: what is committed is what torch takes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from layerwire.wire.dtypes import DTYPE_NAMES
from layerwire_server.operators import OPERATORS
from layerwire_server.operators.operator import TORCH_DTYPES, Operator
from tests.operator_cases import Case, T
from tests.operators.local import request_of

SIZES = {1: (6,), 2: (6, 6), 3: (6, 6, 6)}


def operator_of(case: Case) -> Operator:
    request = request_of(case)
    name = request.operator.WhichOneof("operator")
    return OPERATORS[request.family][name].from_message(getattr(request.operator, name))


def calls(dims, dtype):
    """A call of every operator whose dtypes are its own, by id; inputs of ones."""
    x = T((2, 4, *SIZES[dims]), dtype, "positive")
    weight = T((4, 4) + (2,) * dims, dtype, "positive")
    yield "max", f"max_pool{dims}d", (x, 2), {}
    yield "max-indices", f"max_pool{dims}d", (x, 2), {"return_indices": True}
    yield "avg", f"avg_pool{dims}d", (x, 2), {}
    yield "adaptive-max", f"adaptive_max_pool{dims}d", (x, 4), {}
    yield "adaptive-avg", f"adaptive_avg_pool{dims}d", (x, 4), {}
    yield "lp-infinite", f"lp_pool{dims}d", (x, math.inf, 2), {}
    yield "lp", f"lp_pool{dims}d", (x, 2.0, 2), {}
    yield "unpool", f"max_unpool{dims}d", (x, T(x.shape, "int64", "zeros"), 2), {}
    if dims > 1:
        samples = T((2, 4, dims), dtype, "zeros")
        yield "fractional", f"fractional_max_pool{dims}d", (x, 2, 3), {"_random_samples": samples}
    yield "conv", f"conv{dims}d", (x, weight), {}
    yield "conv-grouped", f"conv{dims}d", (x, T((4, 1) + (2,) * dims, dtype, "positive")), {"groups": 4}
    yield "conv-dilated", f"conv{dims}d", (x, weight), {"dilation": 2}
    yield "conv-transpose", f"conv_transpose{dims}d", (x, weight), {}
    yield "conv-transpose-dilated", f"conv_transpose{dims}d", (x, weight), {"dilation": 2}
    if dims == 1:
        yield "conv-tbc", "conv_tbc", (x, T((2, x.shape[2], 3), dtype, "positive"), T((3,), dtype, "positive")), {}
    if dims == 2:
        yield "unfold", "unfold", (x, 2), {}
        yield "fold", "fold", (T((2, 16, 9), dtype, "positive"), 4, 2), {}


ROWS = [(dims, row[0]) for dims in SIZES for row in calls(dims, "float32")]


def tensor_of(value, device):
    if not isinstance(value, T):
        return value
    if value.values == "zeros":
        return torch.zeros(value.shape, dtype=getattr(torch, value.dtype), device=device)
    return value.make().to(device)


def torch_takes(function, args, kwargs, device):
    try:
        getattr(F, function)(
            *(tensor_of(value, device) for value in args),
            **{key: tensor_of(value, device) for key, value in kwargs.items()},
        )
    except (RuntimeError, NotImplementedError):
        return False
    return True


def check_row(dims, name, device):
    taken, function = set(), ""
    for wire, dtype in DTYPE_NAMES.items():
        _, function, args, kwargs = next(row for row in calls(dims, dtype) if row[0] == name)
        if torch_takes(function, args, kwargs, device):
            taken.add(wire)
    args = tuple(T(value.shape, value.dtype) if isinstance(value, T) else value for value in args)
    kwargs = {key: T(value.shape) if isinstance(value, T) else value for key, value in kwargs.items()}
    operator = operator_of(Case("", function, args, kwargs))
    if operator.name == "lp_pool":  # integers are left out: see LpPool
        taken = {wire for wire in taken if TORCH_DTYPES[wire].is_floating_point}
    assert {DTYPE_NAMES[wire] for wire in operator.dtypes_on(device)} == {DTYPE_NAMES[wire] for wire in taken}


@pytest.mark.parametrize(("dims", "name"), ROWS, ids=str)
def test_cpu_dtypes_are_torchs(dims, name):
    check_row(dims, name, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize(("dims", "name"), ROWS, ids=str)
def test_cuda_dtypes_are_torchs(dims, name):
    check_row(dims, name, "cuda")
