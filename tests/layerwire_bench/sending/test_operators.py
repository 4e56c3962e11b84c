"""What is sent: random tensors that fit each function, the same for the same seed, and clear words for nonsense."""

from __future__ import annotations

import inspect
import pickle

import click
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from layerwire.cli.call import functions
from layerwire_bench import flags, operator_table
from layerwire_bench.operator_table import Arguments
from layerwire_bench.sending import operators, programs, tensors
from layerwire_bench.sending.mix import workload
from layerwire_bench.sending.operators import unpool_indices
from layerwire_bench.sending.programs import Input, Program
from layerwire_bench.sending.tensors import USUAL, RandomTensor, SampleSettings, StoredTensor
from tests.layerwire_bench.entries import entry_of

FOREIGN = Program("model", 2, (Input("a", "float32", (-1, 3)), Input("b", "int64", (-1, -1))))


def test_functions_are_those_of_call():
    assert set(operator_table.functions()) == set(functions())


@pytest.mark.parametrize("function", operator_table.functions())
def test_options_fit_beside_the_others(function):
    """A function's options, those of what is sent, and those of how it is measured are one command."""
    own = [one.name for one in flags.operator_options(function)]
    assert own[:2] == ["shape", "dtype"]
    assert len(set(own)) == len(own)
    assert not set(own) & set(flags.by_name())
    assert set(own[2:]) == {
        name
        for name in list(inspect.signature(functions()[function]).parameters)[2:]
        if name not in {"timeout", "inplace", "out", "_stacklevel", "seed", "dtype"}
    }


def test_examples_are_the_least_that_works():
    """Without any one of its options, no example would."""
    for function in operator_table.functions():
        words = operator_table.example(function).split()
        assert words[:2] == [function, "--shape"]
        for option in words[3::2]:
            at = words.index(option)
            with pytest.raises((click.UsageError, ValueError)):
                entry_of(" ".join(words[:at] + words[at + 2 :]), SampleSettings(samples=1))


def test_equal_seeds_give_equal_calls():
    words = "linear --shape 3,4 --bias 4"
    one, same, other = (entry_of(words, SampleSettings(seed=seed))[1] for seed in (7, 7, 8))
    assert [sample.request.tensors["input"].tobytes() for sample in one] == [
        sample.request.tensors["input"].tobytes() for sample in same
    ]
    assert one[0].request.tensors["weight"].tobytes() != other[0].request.tensors["weight"].tobytes()


def test_samples_share_weights_and_nothing_else():
    """One array, not equal ones, so that a workload holds it once."""
    _, samples = entry_of("bilinear --shape 4,6 --bias 6")
    weights, inputs, others = ([one.request.tensors[name] for one in samples] for name in ("weight", "input", "input2"))
    assert all(one is weights[0] for one in weights)
    assert len({one.tobytes() for one in (*inputs, *others)}) == 2 * len(samples)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("float16", "unit"), ("bfloat16", "unit"), ("float16", "near one"), ("bfloat16", "near one")],
    ids=lambda value: value.replace(" ", "_"),
)
def test_16_bit_floats_keep_to_their_range(dtype, values):
    array = tensors.random_array(np.random.default_rng(0), (100_000,), dtype, values).astype(np.float64)
    low, high = (0.0, 1.0) if values == "unit" else (0.49, 1.51)
    assert low <= array.min()
    assert array.max() < high


def test_lp_pools_have_no_root_of_a_negative_number():
    """Its sign would hang on rounding."""
    _, samples = entry_of("lp_pool2d --shape 2,4,8,8 --norm-type 3 --kernel-size 3")
    assert all(np.isfinite(one.expected["output"]).all() for one in samples)


@pytest.mark.parametrize(
    ("dims", "shape", "given"),
    [
        (1, (2, 3, 7), {"kernel_size": 2}),
        (2, (2, 3, 5, 4), {"kernel_size": [3, 2], "stride": 2, "padding": [1, 0]}),
        (2, (3, 5, 4), {"kernel_size": 2, "output_size": (11, 9)}),
        (2, (2, 3, 5, 4), {"kernel_size": 3, "stride": 1, "padding": 1}),
        (3, (1, 2, 3, 3, 2), {"kernel_size": 2, "output_size": (1, 2, 7, 6, 5)}),
        (2, (0, 3, 5, 4), {"kernel_size": 2}),
    ],
    ids=["1d", "2d", "unbatched", "overlapping", "3d", "empty"],
)
def test_unpooling_indices_are_distinct_and_inside(dims, shape, given):
    found = unpool_indices(np.random.default_rng(0), Arguments(f"max_unpool{dims}d", shape, given))
    assert found.shape == shape
    planes = found.reshape(-1, int(np.prod(shape[-dims:])))
    assert all(len(set(plane)) == len(plane) for plane in planes)
    if found.size:  # torch checks them
        getattr(F, f"max_unpool{dims}d")(torch.zeros(shape), torch.from_numpy(found), **given)


def test_a_max_pool_gives_such_indices():
    """Where windows lie side by side, each index is in its own."""
    found = unpool_indices(np.random.default_rng(0), Arguments("max_unpool2d", (1, 1, 4, 5), {"kernel_size": (2, 3)}))[
        0, 0
    ]
    rows, columns = np.divmod(found, 15)
    assert (rows // 2 == np.arange(4)[:, None]).all()
    assert (columns // 3 == np.arange(5)).all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("max_pool2 --shape 1", "there is no function max_pool2; did you mean max_pool2d"),
        ("relu --shape 1,-3", "1,-3: must be extents of 0 or more such as 1,3,32,32"),
        ("relu --shape 1,x", "1,x: must be extents of 0 or more"),
        ("relu --shape 1,1,1,1,1,1,1,1,1", "relu: input must have at most 8 axes, got 9"),
        ("relu --shape 5 --dtype float33", "float33: must be one of float32, float64"),
        ("relu --shape 16777216,4", "relu: input must be at most 67,043,328 bytes, got 268,435,456: a message"),
        ("linear --shape 8,4096 --weight 4096,4096", "linear: its tensors must be at most 67,043,328 bytes, got"),
        ("unfold --shape 1,8,900,900 --kernel-size 3", "unfold: its answer would be"),
        ("max_pool2d --shape 1,3,1,1 --kernel-size 2", "max_pool2d: Given input size: (3x1x1). Calculated output size"),
        ("linear --shape 3,4 --weight 5,5", "linear: mat1 and mat2 shapes cannot be multiplied (3x4 and 5x5)"),
        ("linear --shape 3,4 --weight x,4", "x,4: must be a shape such as 512,512, name:NAME of stored"),
        ("linear --shape 3,4 --weight name:", "name:: a name must follow"),
        ("linear --shape 3,4 --weight missing.npy", "missing.npy: No such file or directory"),
        ("batch_norm --shape 1,3 --training", "batch_norm: Expected more than 1 value per channel when training"),
        ("max_unpool1d --shape 1,3 --kernel-size 1 --padding 2", "max_unpool1d: its output (-1,) must not be smaller"),
        ("max_unpool2d --shape 1,3,3 --kernel-size 1,2,3", "max_unpool2d: kernel_size must be an integer or 2"),
        ("gelu --shape 3 --approximate some", "gelu: approximate argument must be either none or tanh"),
        ("conv2d --shape 1,3,8,8 --groups 0", "conv2d: "),
    ],
    ids=lambda words: words.replace(" ", "_")[:50],
)  # fmt: skip
def test_nonsense_is_refused_in_clear_words(words, told):
    with pytest.raises((ValueError, click.UsageError)) as caught:
        entry_of(words)
    assert told in getattr(caught.value, "message", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kernal_size": 2}, "max_pool2d: kernal_size is none of its parameters kernel_size, stride"),
        ({}, "max_pool2d: kernel_size is required"),
        ({"kernel_size": "2"}, "max_pool2d: kernel_size must be an integer, got '2'"),
        ({"kernel_size": 2, "ceil_mode": 1}, "max_pool2d: ceil_mode must be True or False"),
    ],
    ids=["unknown", "missing", "text", "no-flag"],
)
def test_wrong_parameters_are_refused(given, told):
    with pytest.raises(ValueError, match=told):
        operators.entry_for("max_pool2d", (1, 1, 4, 4), given)


def test_files_and_names_stand_for_tensors(tmp_path):
    weight = np.eye(4, dtype=np.float32)
    np.save(tmp_path / "w.npy", weight)
    entry, samples = entry_of(f"linear --shape 2,4 --weight {tmp_path / 'w.npy'}")
    np.testing.assert_array_equal(samples[0].expected["output"], samples[0].request.tensors["input"])
    np.save(tmp_path / "w.npy", 2 * weight)
    assert entry_of(f"linear --shape 2,4 --weight {tmp_path / 'w.npy'}")[0].description != entry.description
    _, samples = entry_of("linear --shape 2,4 --weight name:w", SampleSettings(fetch={"w": weight}.get))
    np.testing.assert_array_equal(samples[0].expected["output"], samples[0].request.tensors["input"])
    assert samples[0].request.tensors["weight"] == "w"
    assert entry_of("linear --shape 2,4 --weight name:w")[1][0].expected is None


def test_entry_says_what_it_is():
    entry, _ = entry_of("linear --shape 2,4 --bias 4 --dtype float64", priority=3, deterministic=True, share=0.5)
    assert entry.name == "linear (2,4)"
    told = "linear (2,4) float64, weight=(4,4), bias=(4), priority=3, deterministic=true"
    assert (entry.description, entry.priority, entry.deterministic, entry.share) == (told, 3, True, 0.5)


def test_workload_goes_to_another_process_with_its_weights_once():
    """Client processes are told it that way."""
    whole = workload([entry_of("linear --shape 2,512 --dtype bfloat16")])
    sent = pickle.dumps(whole)
    weight_bytes = whole.samples[0].request.tensors["weight"].nbytes
    assert len(sent) < 1.2 * weight_bytes
    there = pickle.loads(sent)
    assert there.entries == whole.entries
    for one, other in zip(there.samples, whole.samples, strict=True):
        assert one.request.operator == other.request.operator
        assert all(map(np.array_equal, one.request.tensors.values(), other.request.tensors.values()))


def test_servers_need_not_what_local_does():
    weight = np.eye(4, dtype=np.float32)
    whole = workload([entry_of("linear --shape 2,4 --weight name:w", SampleSettings(fetch={"w": weight}.get))])
    assert "w" in whole.samples[0].weights
    assert whole.for_servers().samples[0].weights == {}
    assert whole.for_servers().samples[0].expected is whole.samples[0].expected


def test_inputs_of_a_model_elsewhere():
    """A server of the Open Inference Protocol tells inputs, and nothing that torch could run."""
    entry, samples = programs.entry_for(FOREIGN, {"b": RandomTensor((5, 6))}, rows=5)
    assert entry.name == "model version 2 a=(5,3), b=(5,6)"
    assert entry.description == "run model version 2, a=(5,3) float32, b=(5,6) int64"
    assert samples[0].request.tensors["b"].dtype == np.int64
    assert samples[0].request.operator.version == 2
    assert all(one.expected is None for one in samples)
    assert samples[0].atol > 0


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({}, r"run model: b has free axes \(-1,-1\); --shape b=... says how long they are"),
        ({"c": RandomTensor((1,))}, "run model: c is none of its inputs a, b"),
        ({"a": RandomTensor((1, 4))}, r"run model: a must have shape \(-1,3\), -1 for any, got \(1,4\)"),
        ({"a": RandomTensor((3,))}, r"run model: a must have shape \(-1,3\), -1 for any, got \(3\)"),
        ({"a": RandomTensor((1 << 26, 3))}, "run model: a must be at most"),
        ({"a": StoredTensor("w")}, "run model: a must be a shape or an array, got name:w"),
        ({"a": np.zeros((1, 3))}, "run model: a must be float32, got an array of float64"),
    ],
    ids=["free", "unknown", "extent", "axes", "large", "name", "dtype"],
)
def test_inputs_that_no_model_takes(shapes, told):
    with pytest.raises(ValueError, match=told):
        programs.entry_for(FOREIGN, {"b": RandomTensor((1, 1)), **shapes} if shapes else {}, settings=USUAL)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("input", "must be NAME=SHAPE or NAME=FILE"),
        ("=1,2", "must be NAME=SHAPE"),
        ("a=name:w", "must be a shape or a file"),
    ],
    ids=["bare", "nameless", "stored"],
)
def test_named_shapes_that_are_none(text, told):
    with pytest.raises(ValueError, match=told):
        tensors.source_by_name(text)


def test_named_shapes():
    assert tensors.source_by_name("a=b=1,2") == ("a=b", RandomTensor((1, 2)))
