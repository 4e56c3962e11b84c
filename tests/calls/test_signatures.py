"""Signatures of the methods are those of torch.nn.functional: names, order and defaults of arguments, all of them."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from layerwire.calls import ACTIVATIONS, OperatorCalls, Requests
from layerwire.errors import InvalidArgumentError
from layerwire.v1 import tensor_pb2

lw = Requests()
METHODS = [name for name, _ in inspect.getmembers(OperatorCalls, inspect.isfunction) if not name.startswith("_")]
FUNCTIONS = sorted(set(METHODS) - {"activate"})
# The exceptions: arguments that torch hasn't. All are keyword-only, so that no place in torch's order is taken.
OURS = {
    "rrelu": {"seed"},
    "gumbel_softmax": {"seed"},
    "batch_norm": {"return_statistics"},
}
REQUIRED = {  # arguments without defaults beside the input, and a seed, so that two requests are alike
    "prelu": {"weight": "w"},
    "threshold": {"threshold": 1.0, "value": 2.0},
    "gumbel_softmax": {"seed": 1},
}


def torch_parameters(function: str) -> list[tuple[str, Any]]:
    """Names and defaults in torch: from the signature, the first line of the documentation, or the schema."""
    known = getattr(F, f"{function}_with_indices", None) or getattr(F, function)
    try:
        parameters = inspect.signature(known).parameters.values()
    except ValueError:  # a C function
        line = known.__doc__.strip().splitlines()[0]
        match = re.fullmatch(rf"{function}\((.*)\) -> Tensor", line)
        if match is None:
            return schema_parameters(function)
        parameters = inspect.signature(eval(f"lambda {match[1]}: None")).parameters.values()
    return [(each.name, each.default) for each in parameters]


def schema_parameters(function: str) -> list[tuple[str, Any]]:
    """The same of a C function whose documentation doesn't begin with its signature."""
    arguments = getattr(torch.ops.aten, function).default._schema.arguments
    return [
        (
            "input" if each.name == "self" else each.name,
            each.default_value if each.has_default_value() else inspect.Parameter.empty,
        )
        for each in arguments
    ]


def our_parameters(function: str, kind: Any) -> list[tuple[str, Any]]:
    parameters = list(inspect.signature(getattr(OperatorCalls, function)).parameters.values())[1:]
    return [(each.name, each.default) for each in parameters if each.kind is kind]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_signature_is_torchs(function):
    assert our_parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD) == torch_parameters(function)
    keyword = {name for name, _ in our_parameters(function, inspect.Parameter.KEYWORD_ONLY)}
    assert keyword == {"timeout"} | OURS.get(function, set())


def test_every_exception_is_one():
    for function, names in OURS.items():
        assert not names & {name for name, _ in torch_parameters(function)}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_docstring_has_one_sentence_and_shapes(function):
    lines = inspect.getdoc(getattr(OperatorCalls, function)).splitlines()
    assert lines[0].endswith((".", ";")) or lines[0][-1].isalnum()
    assert any(line.startswith("Shape: ") for line in lines)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activate_takes_all_that_the_activation_takes(name):
    parameters = REQUIRED.get(name, {})
    assert lw.activate("x", name, **parameters) == getattr(lw, name)("x", **parameters)
    assert lw.activate("x", name, **parameters).operator.WhichOneof("operator") == name
    defaults = {key: value for key, value in torch_parameters(name) if value is not inspect.Parameter.empty}
    assert lw.activate("x", name, **defaults, **parameters) == getattr(lw, name)("x", **parameters)


INPLACE = [function for function in FUNCTIONS if "inplace" in dict(torch_parameters(function))]


def test_torch_does_many_activations_in_place():
    assert len(INPLACE) >= 13


@pytest.mark.parametrize("function", INPLACE)
def test_nothing_is_done_in_place(function):
    call, parameters = getattr(lw, function), REQUIRED.get(function, {})
    assert call("x", **parameters, inplace=np.bool_(False)) == call("x", **parameters)
    with pytest.raises(InvalidArgumentError, match="inplace must be False") as caught:
        call("x", **parameters, inplace=True)
    assert caught.value.field == "inplace"
    with pytest.raises(TypeError, match="inplace must be True or False"):
        call("x", **parameters, inplace=1)


def test_nothing_is_written_out():
    assert lw.normalize("x", 2.0, 1, 1e-12, None) == lw.normalize("x")
    with pytest.raises(InvalidArgumentError) as caught:
        lw.normalize("x", out=np.zeros(3))
    assert caught.value.field == "out"


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, tensor_pb2.DATA_TYPE_FLOAT16),
        (torch.bfloat16, tensor_pb2.DATA_TYPE_BFLOAT16),
        ("float32", tensor_pb2.DATA_TYPE_FLOAT32),
        ("bfloat16", tensor_pb2.DATA_TYPE_BFLOAT16),
        (np.float64, tensor_pb2.DATA_TYPE_FLOAT64),
        (np.dtype("float32"), tensor_pb2.DATA_TYPE_FLOAT32),
        (float, tensor_pb2.DATA_TYPE_FLOAT64),
        (torch.int64, tensor_pb2.DATA_TYPE_INT64),  # the server refuses it, as torch does
        (None, tensor_pb2.DATA_TYPE_UNSPECIFIED),
    ],
    ids=str,
)
def test_dtype_is_torchs_numpys_or_a_name(dtype, expected):
    for function in ("softmax", "softmin", "log_softmax"):
        operator = getattr(lw, function)("x", 1, 3, dtype).operator
        assert getattr(operator, function).dtype == expected
        assert lw.activate("x", function, dim=1, dtype=dtype).operator == operator


@pytest.mark.parametrize("dtype", ["nonsense", 3, torch.complex64, object()], ids=["name", "number", "complex", "else"])
def test_what_is_no_dtype_is_a_type_error(dtype):
    with pytest.raises(TypeError, match="softmax: dtype must be one of float32, "):
        lw.softmax("x", 1, dtype=dtype)


def test_dtype_that_no_tensor_has_is_a_value_error():
    with pytest.raises(InvalidArgumentError) as caught:
        lw.softmax("x", 1, dtype=np.complex64)
    assert caught.value.field == "dtype"
