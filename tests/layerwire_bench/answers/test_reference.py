"""What answers should be: torch's calls of messages, how far answers may be off, and how they differ."""

from __future__ import annotations

import builtins
import importlib.util

import ml_dtypes
import numpy as np
import pytest
import torch

from layerwire.calls import Requests
from layerwire.v1 import operators_pb2
from layerwire_bench.answers import reference, torch_calls
from layerwire_bench.answers.difference import difference, scale
from layerwire_bench.sending.tensors import SampleSettings
from tests.layerwire_bench.entries import entry_of
from tests.operator_cases import cases
from tests.operators.local import request_of

CASES = [case for case in cases() if not torch_calls.draws_numbers(request_of(case).operator)]  # which torch can't know
NO_KERNEL = {"local_response_norm-float16-4d"}  # which the server computes by another that torch has
ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def as_torch(value) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(value)


def assert_close(case, one: torch.Tensor, other: torch.Tensor, rtol: float, atol: float) -> None:
    torch.testing.assert_close(one, other, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{case.id}: {text}")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_every_case_is_torchs_own_answer():
    """The table of operator cases: what the request's message makes of torch is what the case's own call gives."""
    assert len(CASES) > 400
    torch.set_num_threads(1)  # of several values that share a place, one of several threads keeps any
    for case in CASES:
        request = request_of(case)
        call, outputs = torch_calls.torch_call(request.operator, list(request.tensors))
        if case.id in NO_KERNEL:
            with pytest.raises(NotImplementedError):
                call(*map(as_torch, request.tensors.values()))
            continue
        found = call(*map(as_torch, request.tensors.values()))
        found = found if isinstance(found, tuple) else (found,)
        expected = case.answer()
        assert len(outputs) == len(found) == len(expected), case.id
        rtol, atol = (0, 0) if case.tolerance is None or case.reference is None else case.tolerance
        for one, other in zip(found, expected, strict=True):
            assert_close(case, one, other, rtol, atol)


def test_every_operator_of_the_contract_has_a_call():
    names = {
        field.name
        for name in ("Pool", "Unpool", "Linear", "Activate", "Convolve", "Normalize")
        for field in getattr(operators_pb2, f"{name}Operator").DESCRIPTOR.fields
    }
    assert names - set(torch_calls.CALLS) == {"gumbel_softmax"}  # which is drawn by the server alone


@pytest.mark.parametrize(
    ("got", "told"),
    [
        ({}, "output is missing, the answer has nothing"),
        ({"other": ARRAY}, "output is missing, the answer has other"),
        ({"output": ARRAY, "indices": ARRAY}, "indices was answered besides"),
        ({"output": ARRAY.astype(np.float64)}, "output is float64, should be float32"),
        ({"output": ARRAY[:1]}, "output has shape (1, 3, 4), should have (2, 3, 4)"),
        ({"output": ARRAY * 1.5}, "output is off in 23 of 24 elements: 34.5 at (1, 2, 3) should be 23"),
        (
            {"output": np.where(ARRAY == 5, np.nan, ARRAY).astype(np.float32)},
            "output has NaN in 1 of 24 elements: nan at (0, 1, 1) should be 5",
        ),
        ({"output": np.where(ARRAY == 7, np.inf, ARRAY).astype(np.float32)}, "inf at (0, 1, 3) should be 7"),
    ],
    ids=["nothing", "another", "besides", "dtype", "shape", "values", "nan", "inf"],
)
def test_difference_tells(got, told):
    found = difference({"output": ARRAY}, got, 1e-3, 1e-3)
    assert found is not None
    assert told in found


@pytest.mark.parametrize(
    ("expected", "got", "rtol", "atol"),
    [
        (ARRAY, ARRAY.copy(), 0, 0),
        (ARRAY, ARRAY[:, :, ::-1].copy()[:, :, ::-1], 0, 0),
        (ARRAY, ARRAY * np.float32(1 + 1e-6), 1e-5, 0),
        (ARRAY, ARRAY + np.float32(1e-4), 0, 2e-4),
        (np.array([np.nan, np.inf, -np.inf, -0.0]), np.array([-np.nan, np.inf, -np.inf, 0.0]), 0, 0),
        (np.array([1.0, 2.0], BFLOAT16), np.array([1.0078125, 2.0], BFLOAT16), 1e-2, 0),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0, 0),
        (np.array(3.0), np.array(3.0), 0, 0),
    ],
    ids=["copy", "strides", "relative", "absolute", "special", "bfloat16", "empty", "scalar"],
)
def test_difference_allows(expected, got, rtol, atol):
    assert difference({"output": expected}, {"output": got}, rtol, atol) is None


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([1, 2], np.uint8), np.array([255, 2], np.uint8)),
        (np.array([True, False]), np.array([True, True])),
        (np.array([np.inf]), np.array([-np.inf])),
        (np.array([1.0]), np.array([np.inf])),
        (np.array([np.nan]), np.array([0.0])),
        (np.array([1.0], BFLOAT16), np.array([1.0078125], BFLOAT16)),
    ],
    ids=["int64", "uint8", "bool", "signs", "infinite", "nan", "bfloat16"],
)
def test_difference_sees_what_tolerance_must_not_hide(expected, got):
    rtol = 10.0 if expected.dtype.kind in "biu" or not np.isfinite(expected.astype(np.float64)).all() else 1e-3
    assert difference({"output": expected}, {"output": got}, rtol, rtol) is not None


def test_scale_is_the_largest_finite_element():
    outputs = {"a": np.array([np.inf, -7.5, np.nan]), "b": np.array([2.0], BFLOAT16), "indices": np.array([100])}
    assert scale(outputs) == 7.5
    assert scale({"a": np.zeros(0)}) == 1.0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "words",
    [
        "linear --shape 4,512",
        "conv2d --shape 2,16,12,12",
        "gelu --shape 8,64",
        "layer_norm --shape 4,64 --normalized-shape 64",
    ],
    ids=lambda words: words.split()[0],
)
def test_what_is_allowed_is_rounding_and_no_more(words, dtype):
    """An answer summed in float64 and rounded passes; one off by a hundredth of its largest element never does."""
    _, (sample, *_) = entry_of(f"{words} --dtype {dtype}", SampleSettings(samples=1))
    expected = sample.expected["output"]
    exact = (
        reference._torch_call(sample.request, {}, None, lambda x: x.double()).function().numpy().astype(expected.dtype)
    )
    assert difference(sample.expected, {"output": exact}, sample.rtol, sample.atol) is None
    off = expected.astype(np.float64)
    share = {"float32": 1e-3, "float64": 1e-9, "float16": 2e-2, "bfloat16": 0.3}[dtype]
    off.flat[np.argmin(np.abs(off))] += share * np.abs(off).max()
    assert difference(sample.expected, {"output": off.astype(expected.dtype)}, sample.rtol, sample.atol) is not None


def test_what_chooses_among_its_inputs_is_right_to_the_bit():
    for words in (
        "max_pool2d --shape 1,1,4,4 --kernel-size 2",
        "relu --shape 4",
        "unfold --shape 1,1,4,4 --kernel-size 2",
    ):
        _, samples = entry_of(words)
        assert {(one.rtol, one.atol) for one in samples} == {(0.0, 0.0)}


def test_without_torch_the_first_answer_is_the_reference(monkeypatch):
    """As on a machine that has none: it isn't imported either."""
    find, really = importlib.util.find_spec, builtins.__import__
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))

    def importing(name, *args, **kwargs):
        assert name.partition(".")[0] != "torch", "torch was imported"
        return really(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)
    _, samples = entry_of("conv2d --shape 1,3,8,8 --dtype bfloat16")
    assert [one.expected for one in samples] == [None] * len(samples)
    assert samples[0].atol > 0
    assert entry_of("max_pool2d --shape 1,3,8,8 --kernel-size 2")[1][0].atol == 0
    with pytest.raises(ValueError, match="torch must be installed"):
        reference.local_call(samples[0])


@pytest.mark.parametrize(
    ("words", "outputs"),
    [
        ("max_pool2d --shape 1,3,8,8 --kernel-size 2 --return-indices", ["output", "indices"]),
        ("linear --shape 4,8 --dtype bfloat16", ["output"]),
        ("batch_norm --shape 4,3 --training --return-statistics", ["output", "batch_mean", "batch_var"]),
    ],
    ids=["two", "bfloat16", "statistics"],
)
def test_local_call_gives_what_it_should(words, outputs):
    _, samples = entry_of(words)
    call = reference.local_call(samples[1])
    assert list(call()) == outputs
    assert difference(samples[1].expected, call(), 0, 0) is None
    assert difference(samples[0].expected, call(), samples[0].rtol, samples[0].atol) is not None


def test_local_call_leaves_running_statistics_alone():
    _, samples = entry_of("batch_norm --shape 4,3 --training --running-mean 3 --running-var 3")
    before = [array.copy() for array in samples[0].request.tensors.values()]
    call = reference.local_call(samples[0])
    first, second = call(), call()
    assert difference(first, second, 0, 0) is None
    assert all(map(np.array_equal, before, samples[0].request.tensors.values()))


@pytest.mark.parametrize("words", ["gumbel_softmax --shape 4,8", "rrelu --shape 8 --training"], ids=["gumbel", "rrelu"])
def test_local_refuses_what_the_server_draws(words):
    _, samples = entry_of(words)
    with pytest.raises(ValueError, match="is drawn by the server alone"):
        reference.local_call(samples[0])


def test_an_answer_too_large_is_not_made():
    request = Requests().adaptive_avg_pool2d(np.zeros((1, 1, 2, 2), np.float32), 1 << 20)
    with pytest.raises(
        ValueError, match="its answer would be 4,398,046,511,104 bytes, more than the 1,000 of a message"
    ):
        reference.expectation(request, "float32", max_bytes=1000)
