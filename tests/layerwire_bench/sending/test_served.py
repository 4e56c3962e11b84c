"""What is sent, through a server: every function and program gets the answers that it should, in company."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import nn

import layerwire
from layerwire.errors import InvalidArgumentError
from layerwire_bench import operator_table
from layerwire_bench.answers import reference
from layerwire_bench.answers.difference import difference
from layerwire_bench.sending import programs
from layerwire_bench.sending.tensors import SampleSettings
from layerwire_bench.workload import Sample
from tests.layerwire_bench.entries import entry_of
from tests.networks import NETWORKS, build, inputs

FLOATS = ("float32", "float64", "float16", "bfloat16")
DRAWN = {"gumbel_softmax"}
IN_FLIGHT = 64


def sent(lw: layerwire.Client, samples: Iterable[Sample], times: int) -> list[tuple[Sample, object]]:
    """Futures of the samples, each several times, some in flight at once."""
    view, found, waiting = lw.submit, [], []
    for sample in [sample for sample in samples for _ in range(times)]:
        future = view.call(sample.request)
        found.append((sample, future))
        waiting.append(future)
        if len(waiting) >= IN_FLIGHT:
            waiting.pop(0).exception(60)
    return found


def outputs(sample: Sample, future) -> dict[str, np.ndarray]:
    """What was answered, by name."""
    value = future.result(60)
    if isinstance(value, dict):
        return value
    values = value if isinstance(value, tuple) else (value,)
    names = list(sample.expected or ["output"])
    assert len(names) == len(values)
    return dict(zip(names, values, strict=True))


def wrong(pairs) -> list[str]:
    """How answers differ from what they should be."""
    firsts: dict[int, dict] = {}
    found = []
    for sample, future in pairs:
        got = outputs(sample, future)
        expected = sample.expected or firsts.setdefault(id(sample), got)
        told = difference(expected, got, sample.rtol, sample.atol)
        if told is not None:
            found.append(f"{sample.request.function}: {told}")
    return found


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_function_gets_what_it_should(client, dtype):
    """All functions at once, so that calls have company; every answer is looked at."""
    workloads = {
        name: entry_of(f"{operator_table.example(name)} --dtype {dtype}", SampleSettings(samples=3))[1]
        for name in operator_table.functions()
    }
    assert len(workloads) > 60
    unknown = {name for name, samples in workloads.items() if samples[0].expected is None}
    refused = {name for name in unknown - DRAWN if refuses(client, workloads[name][0])}
    assert unknown == DRAWN | refused  # torch here can't where the server can't either
    kept = [one for name, samples in workloads.items() if name not in refused for one in samples]
    order = np.random.default_rng(1).permutation(len(kept))
    assert wrong(sent(client, [kept[index] for index in order], 4)) == []


def refuses(lw: layerwire.Client, sample: Sample) -> bool:
    error = lw.submit.call(sample.request).exception(60)
    assert error is None or isinstance(error, InvalidArgumentError)
    return error is not None


@pytest.mark.parametrize(
    "words",
    [
        "linear --shape 4,300 --weight 70,300 --bias 70",
        "conv2d --shape 2,8,20,20 --weight 16,4,5,5 --bias 16 --groups 2 --padding same --dtype float16",
        "conv_transpose2d --shape 2,8,9,9 --weight 8,4,3,3 --stride 2 --output-padding 1",
        "batch_norm --shape 8,5,7 --training --return-statistics --weight 5 --bias 5",
        "batch_norm --shape 8,5,7 --training --return-statistics --running-mean 5 --running-var 5",
        "instance_norm --shape 2,5,30 --no-use-input-stats",
        "rrelu --shape 5,40 --training",
        "gumbel_softmax --shape 5,40 --hard",
        "softmax --shape 3,4,5",
        "log_softmax --shape 40",
        "max_unpool2d --shape 2,3,6,5 --kernel-size 3 --stride 2 --padding 1",
        "max_unpool1d --shape 3,6 --kernel-size 2 --output-size 13",
        "fractional_max_pool2d --shape 3,15,15 --kernel-size 2 --output-ratio 0.5,0.6 --return-indices",
        "max_pool2d --shape 1,3,9,9 --kernel-size 2 --return-indices --dtype int32",
        "relu --shape 5,5 --dtype int64",
        "bilinear --shape 4,6 --input2 4,5 --weight 3,6,5 --bias 3",
        "conv_tbc --shape 9,2,6 --weight 3,6,4 --pad 1",
        "prelu --shape 2,7,3 --weight 7",
        "avg_pool3d --shape 1,2,9,8,7 --kernel-size 3,2,2 --padding 1,0,1 --ceil-mode --no-count-include-pad",
        "adaptive_avg_pool2d --shape 1,4,9,9 --output-size none,4 --dtype bfloat16",
    ],
    ids=lambda words: words.replace(" ", "_"),
)  # fmt: skip
def test_options_get_what_they_should(client, words):
    _, samples = entry_of(words)
    inputs = [one.request.tensors["input"] for one in samples]
    assert len({array.tobytes() for array in inputs}) == len(samples)
    assert wrong(sent(client, samples, 3)) == []


def test_a_wrong_answer_is_seen(client):
    """The same machinery, a call whose answer is another one's."""
    _, (one, other, *_) = entry_of("conv2d --shape 1,3,8,8")
    futures = sent(client, [one], 1)
    assert "off in" in wrong([(other, futures[0][1])])[0]


def test_stored_weights_are_fetched(client):
    weight = np.random.default_rng(3).normal(size=(6, 10)).astype(np.float32)
    client.put_weights("bench.weight", weight)
    words = "linear --shape 4,10 --weight name:bench.weight"
    _, known = entry_of(words, SampleSettings(fetch=client.get_weights))
    _, unknown = entry_of(words)
    assert known[0].expected is not None
    np.testing.assert_array_equal(known[0].weights["bench.weight"], weight)
    assert unknown[0].expected is None
    assert wrong(sent(client, [*known, *unknown], 2)) == []
    client.delete_weights("bench.weight")


@pytest.mark.parametrize("name", ["lenet", "vgg", "segnet", "temporal"])
def test_programs_give_what_they_should(client, name):
    network = NETWORKS[name]
    client.deploy(name, build(network.make), *inputs(network, 2))
    program = programs.stored_program(client, name)
    assert program.note is None
    assert set(program.constants) == {one.name for one in program.definition.constants if one.HasField("stored")}
    entry, samples = programs.entry_for(program, rows=3)
    assert all(one.expected is not None for one in samples)
    assert entry.description.startswith(f"run {name}, ")
    assert wrong(sent(client, samples, 4)) == []
    local = reference.local_call(samples[0])()
    assert difference(samples[0].expected, local, 0, 0) is None
    client.delete_program(name)


def test_weights_come_whole_in_several_answers(client):
    """More of them than an answer holds outputs, and more bytes than one holds."""
    layers = [nn.Linear(8, 8) for _ in range(40)]
    module = nn.Sequential(*layers, nn.Linear(8, 500_000), nn.Linear(500_000, 8)).eval()
    client.deploy("large", module, torch.zeros(1, 8))
    program = programs.stored_program(client, "large")
    assert program.note is None
    stored = {
        f"{index}.{key}": value for index, layer in enumerate(module) for key, value in layer.state_dict().items()
    }
    assert set(program.constants) == set(stored)
    for key, value in stored.items():
        np.testing.assert_array_equal(program.constants[key], value.numpy())
    client.delete_program("large")


def test_programs_without_weights_have_no_expectation(client, monkeypatch):
    client.deploy("heavy", nn.Linear(4, 4), torch.zeros(1, 4))
    monkeypatch.setattr(programs, "MAX_WEIGHTS_BYTES", 10)
    program = programs.stored_program(client, "heavy")
    assert program.definition is None
    assert program.note == "its weights are 80 bytes, more than the 10 that are fetched"
    _, samples = programs.entry_for(program)
    assert samples[0].expected is None
    assert wrong(sent(client, samples, 3)) == []
    with pytest.raises(ValueError, match="local can't run it"):
        reference.local_call(samples[0])
    client.delete_program("heavy")
