"""What answers should be: torch's calls of messages, how far answers may be off, and how they differ."""

from __future__ import annotations

import builtins
import importlib.util

import numpy as np
import pytest

from layerwire.calls import Requests
from layerwire_bench.answers import reference
from layerwire_bench.answers.difference import difference
from layerwire_bench.sending.tensors import SampleSettings
from tests.layerwire_bench.entries import entry_of


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
