"""What `map` makes of sequences: the requests that the calls would be one by one."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from tests.operator_cases import cases

from layerwire.calls import Calls, MapCalls, MapRequest, Requests
from layerwire.calls.map_calls import WEIGHTS
from layerwire.errors import InvalidArgumentError
from layerwire.transport.call import NOBODY, Call
from layerwire.transport.call_map import CallMap
from layerwire.transport.options import Options
from layerwire.v1 import layerwire_pb2 as pb

lw: Any = MapCalls(lambda request: request)
one = Requests()
CASES = {case.function: case for case in cases()}  # one of each
A, B = np.arange(6, dtype="f4").reshape(2, 3), np.arange(4, dtype="f8")


def message(call: Call) -> pb.Call:
    return pb.Calls.FromString(b"".join(call.entry.parts(1, call.data))).calls[0]


def messages(request: MapRequest) -> list[pb.Call]:
    calls = CallMap(request, Options(), NOBODY)
    return [message(calls.call(row)) for row in range(request.calls)]


def single(request: Any) -> pb.Call:
    return message(Call(request, Options(), NOBODY))


def stack_or_list(value: Any, *, is_stack: bool) -> Any:
    """Two calls' tensors of one."""
    if isinstance(value, torch.Tensor):
        return torch.stack([value, value]) if is_stack else [value, value]
    return np.stack([value, value]) if is_stack else (value, value)


@pytest.mark.parametrize("is_stack", [False, True], ids=["list", "stack"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_call_is_what_it_would_be_alone(case, is_stack):
    args, kwargs = case.arguments()
    bound = inspect.signature(getattr(Calls, case.function)).bind(None, *args, **kwargs)
    many = {
        name: stack_or_list(value, is_stack=is_stack)
        for name, value in bound.arguments.items()
        if isinstance(value, torch.Tensor | np.ndarray) and name not in WEIGHTS
    }
    if not many:
        pytest.skip("names alone, or numbers")
    expected = single(getattr(one, case.function)(*args, **kwargs))
    bound.arguments.update(many)
    calls = messages(getattr(lw, case.function)(*bound.args[1:], **bound.kwargs))
    assert len(calls) == 2
    if not expected.activate.operator.HasField("gumbel_softmax"):  # whose seeds are drawn
        assert calls == [expected] * 2


def test_methods_are_those_of_one_call():
    names = {name for name, _ in inspect.getmembers(Calls, inspect.isfunction) if not name.startswith("_")}
    assert names == {name for name, _ in inspect.getmembers(MapCalls, inspect.isfunction) if not name.startswith("_")}
    assert inspect.getdoc(lw.relu) == inspect.getdoc(one.relu)


PAIRS = {
    "shapes-and-dtypes": (lw.relu([A, B, A]), [one.relu(A), one.relu(B), one.relu(A)]),
    "numbers": (lw.relu([[1.0, 2.0], 3]), [one.relu([1.0, 2.0]), one.relu(3)]),
    "names": (lw.relu(["x", A]), [one.relu("x"), one.relu(A)]),
    "scalars-of-an-array": (lw.relu(B), [one.relu(np.float64(value)) for value in B]),
    "a-shared-weight": (lw.linear([A, A[:1]], A), [one.linear(A, A), one.linear(A[:1], A)]),
    "weights-of-numbers": (lw.linear([A], [[1.0, 2, 3]], [4.0]), [one.linear(A, [[1.0, 2, 3]], [4.0])]),
    "a-weight-each": (lw.linear([A, A], [A, A[1:]]), [one.linear(A, A), one.linear(A, A[1:])]),
    "a-name-each": (lw.linear([A, A], ["v", "w"], "b"), [one.linear(A, "v", "b"), one.linear(A, "w", "b")]),
    "a-shared-input": (lw.bilinear("x", [A, A], "w"), [one.bilinear("x", A, "w")] * 2),
    "two-inputs": (lw.cosine_similarity([A, A], (A, B)), [one.cosine_similarity(A, A), one.cosine_similarity(A, B)]),
    "by-name": (lw.activate([A, A], "prelu", weight=A[0]), [one.activate(A, "prelu", weight=A[0])] * 2),
    "a-timeout": (lw.relu([A, A], timeout=2.0), [one.relu(A, timeout=2.0)] * 2),
    "a-program": (
        lw.run("net", {"b": [A, B], "a": np.stack([B, B]), "c": "stored"}, version=2),
        [one.run("net", {"b": b, "a": B, "c": "stored"}, version=2) for b in (A, B)],
    ),
    "gradients": (
        lw.differentiate(lambda f: f.linear([A, A + 1], "w"), [A, A], ["input"]),
        [one.differentiate(lambda f, x=x: f.linear(x, "w"), A, ["input"]) for x in (A, A + 1)],
    ),
    "gradients-of-several": (
        lw.differentiate(lambda f: f.run("net", {"x": [A, B]}), {"y": [A, B], "z": "stored"}, ["x"]),
        [one.differentiate(lambda f, x=x: f.run("net", {"x": x}), {"y": x, "z": "stored"}, ["x"]) for x in (A, B)],
    ),
    "whole-output-sizes": (
        lw.max_unpool2d(np.zeros((2, 1, 1, 2, 2), "f4"), np.zeros((2, 1, 1, 2, 2), "i8"), 2, output_size=(1, 1, 4, 4)),
        [one.max_unpool2d(np.zeros((1, 1, 2, 2), "f4"), np.zeros((1, 1, 2, 2), "i8"), 2, output_size=(1, 1, 4, 4))] * 2,
    ),
    "none": (lw.relu([]), []),
    "an-empty-axis": (lw.relu(np.zeros((0, 3))), []),
}  # fmt: skip


@pytest.mark.parametrize(("many", "singles"), PAIRS.values(), ids=PAIRS)
def test_what_is_for_each_call_and_what_for_all(many, singles):
    assert messages(many) == [single(request) for request in singles]


def test_seeds_are_drawn_for_each_call_and_given_ones_are_for_all():
    def seeds(request):
        return {call.activate.operator.rrelu.seed for call in messages(request)}

    assert len(seeds(lw.rrelu([A] * 5, training=True))) == 5
    assert seeds(lw.rrelu([A] * 5, training=True, seed=7)) == {7}


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: lw.relu(1.0), TypeError, "relu: map takes a sequence"),
        (lambda: lw.relu("stored"), TypeError, "relu: map takes a sequence"),
        (lambda: lw.relu(np.float32(1)), TypeError, "relu: map takes a sequence"),
        (lambda: lw.relu(b"bytes"), TypeError, "relu: map takes a sequence"),
        (lambda: lw.linear("x", A), TypeError, "linear: map takes a sequence"),
        (lw.relu, TypeError, "missing 1 required positional argument: 'input'"),
        (lambda: lw.relu([A], 1, 2, 3), TypeError, "positional arguments"),
        (lambda: lw.relu([A], return_exceptions=1), TypeError, "relu: return_exceptions must be True or False"),
        (lambda: lw.max_unpool2d([A, A], [A], 2), InvalidArgumentError, "indices has tensors for 1 calls, input for 2"),
        (lambda: lw.relu([A], inplace=True), InvalidArgumentError, "inplace must be False"),
        (lambda: lw.run("net", [A]), TypeError, "run: inputs must map names to tensors"),
    ],
    ids=lambda value: getattr(value, "__name__", value) if isinstance(value, type) else None,
)  # fmt: skip
def test_what_is_no_map_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
