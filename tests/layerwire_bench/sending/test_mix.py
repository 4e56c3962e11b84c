"""Mixes: what a file says becomes a workload, and what it says wrongly one sentence with the place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layerwire.errors import NotFoundError
from layerwire_bench.sending.mix import load
from layerwire_bench.sending.programs import Input, Program
from layerwire_bench.sending.tensors import SampleSettings

EXAMPLE = Path(__file__).parents[3] / "docs" / "mix.toml"


def find(name: str, version: int | None) -> Program:
    if name != "digits":
        raise NotFoundError(f"there is no program {name}")
    return Program(name, version, (Input("input", "float32", (-1, 1, 4, 4)),))


@pytest.fixture
def mix(tmp_path):
    """What a file of this text gives."""

    def made(text: str, **more):
        path = tmp_path / "mix.toml"
        path.write_text(text)
        return load(path, find, **more)

    return made


def test_the_example_is_a_mix():
    found = load(EXAMPLE, find)
    shares = {entry.name: entry.share for entry in found.workload.entries}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["max_pool2d (1,3,32,32)"] == pytest.approx(4 / 10)
    assert shares["relu (16,1000) float16"] == pytest.approx(3 / 10 / 6)
    assert len(shares) == len(found.workload.entries) == 9
    assert {name: array.shape for name, array in found.weights.items()} == {
        "mix.weight": (256, 512),
        "mix.bias": (256,),
    }
    linear = found.workload.entries[-1]
    assert (linear.priority, linear.deterministic) == (5, True)
    assert all(one.expected is not None for one in found.workload.samples)
    assert found.workload.reference.startswith("torch ")


def test_the_examples_program_is_one_too(tmp_path):
    """What stands in comments, for servers that have it."""
    text = EXAMPLE.read_text().replace("#\n# [[call]]\n# program", "\n[[call]]\nprogram").replace("# rows", "rows")
    (tmp_path / "mix.toml").write_text(text)
    found = load(tmp_path / "mix.toml", find)
    assert [one.name for one in found.workload.entries if one.name.startswith("digits")] == [
        "digits (1,1,4,4)",
        "digits (16,1,4,4)",
    ]
    assert found.workload.reference.endswith("the first answer of digits (1,1,4,4), digits (16,1,4,4)")


def test_tensors_in_every_form(mix, tmp_path):
    np.save(tmp_path / "b.npy", np.arange(3, dtype=np.float32))
    found = mix(
        """
        [[call]]
        function = "linear"
        shape = [2, 4]
        weight = "name:w"
        bias = "b.npy"
        [[call]]
        function = "batch_norm"
        shape = [2, 3]
        dtype = "float16"
        running_mean = {shape = [3], dtype = "float32"}
        running_var = {shape = [3], dtype = "float32"}
        weight = {shape = [3], dtype = "float32"}
        bias = {shape = [3], dtype = "float32"}
        [[call]]
        function = "linear"
        shape = [2, 4]
        weight = "name:elsewhere"
        [weights]
        w = [3, 4]
        """
    )
    first, second, third = (next(one for one in found.workload.samples if one.entry == entry) for entry in range(3))
    weight, x = found.weights["w"], first.request.tensors["input"]
    np.testing.assert_allclose(first.expected["output"], x @ weight.T + np.arange(3), rtol=1e-5, atol=1e-5)
    dtypes = {name: array.dtype.name for name, array in second.request.tensors.items()}
    assert dtypes.pop("input") == "float16"
    assert list(dtypes.values()) == ["float32"] * 4
    assert third.expected is None


def test_same_seed_same_weights(mix):
    text = "[[call]]\nfunction = 'relu'\nshape = [2]\n[weights]\na = [3]\nb = {shape = [3], values = 'near one'}"
    one, other = mix(text), mix(text)
    assert one.weights["a"].tobytes() == other.weights["a"].tobytes() != one.weights["b"].tobytes()
    assert one.weights["b"].min() >= 0.5


RELU = "[[call]]\nfunction = 'relu'\nshape = [2]\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = [", "not TOML: "),
        ("", "must have at least one [[call]]"),
        ("call = 3", "call must be [[call]] tables, got 3"),
        ("call = [3]", "call 1 must be a table, got 3"),
        ("[calls]", "calls is unknown, did you mean call; it has [[call]] tables and [weights]"),
        ("[[call]]\nshape = [2]", "call 1: must have either function or program, got none"),
        ("[[call]]\nfunction = 'relu'\nprogram = 'x'", "call 1: must have either function or program, got"),
        ("[[call]]\nfunction = 'reluu'\nshape = [2]", "call 1: function: there is no function reluu; did you"),
        ("[[call]]\nfunction = 3\nshape = [2]", "call 1: function must be text, got 3"),
        ("[[call]]\nfunction = 'relu'", "call 1: shape is required"),
        (RELU + "[[call]]\nfunction = 'relu'\nshape = 2", "call 2: shape must be a list of whole numbers such"),
        ("[[call]]\nfunction = 'relu'\nshape = [2.5]", "call 1: shape must be a list of whole numbers such as"),
        ("[[call]]\nfunction = 'relu'\nshape = [true]", "call 1: shape must be a list of whole numbers such as"),
        ("[[call]]\nfunction = 'relu'\nshape = [-2]", "call 1: relu: input must have extents of 0 or more, got [-2]"),
        ("[[call]]\nfunction = 'relu'\nshapes = []", "call 1: shapes must have at least one, got none"),
        (RELU + "shapes = [[3]]", "call 1: must have either shape or shapes, got both"),
        (RELU + "dtype = 'float33'", "call 1: dtype must be one of float32"),
        (RELU + "dtypes = 'float32'", "call 1: dtypes must be a list, got float32"),
        (RELU + "share = 0", "call 1: share must be above 0, got 0"),
        (RELU + "share = true", "call 1: share must be a number, got True"),
        (RELU + "share = inf", "call 1: share must be above 0, got inf"),
        (RELU + "priority = 11", "call 1: priority must be -10 to 10, got 11"),
        (RELU + "priority = 1.5", "call 1: priority must be a whole number, got 1.5"),
        (RELU + "deterministic = 1", "call 1: deterministic must be true or false, got 1"),
        (RELU + "kernel_size = 2", "call 1: kernel_size is unknown; relu has "),
        (RELU + "seed = 2", "call 1: seed is unknown"),
        (RELU + RELU, "call 2: relu (2) float32 is call 1 already: leave one of them out"),
        ("[[call]]\nfunction = 'relu'\nshapes = [[3], [3]]", "call 1: relu (3) float32 is call 1 already"),
        ("[[call]]\nfunction = 'max_pool1d'\nshape = [1, 4]\nkernel_size = 'a'", "call 1: max_pool1d:"),
        ("[[call]]\nfunction = 'max_pool1d'\nshape = [1, 4]\nkernel_size = 9", "call 1: max_pool1d: "),
        ("[[call]]\nfunction = 'max_pool1d'\nshape = [1, 4]", "call 1: max_pool1d: kernel_size is required"),
        ("[[call]]\nfunction = 'linear'\nshape = [1, 4]\nweight = 3", "call 1: weight must be a shape such as"),
        ("[[call]]\nfunction = 'linear'\nshape = [1, 4]\nweight = 'w.npy'", "call 1: weight: "),
        ("[[call]]\nfunction = 'linear'\nshape = [1, 4]\nweight = {shap = [1]}", "call 1: weight: shap is"),
        ("[[call]]\nfunction = 'linear'\nshape = [1, 4]\nweight = {dtype = 'int8'}", "call 1: weight.shape is"),
        ("[[call]]\nprogram = 'digit'", "call 1: program: there is no program digit"),
        ("[[call]]\nprogram = 'digits'\nrows = 0", "call 1: rows must be a whole number above 0, or several, got 0"),
        ("[[call]]\nprogram = 'digits'\nrows = [1, true]", "call 1: rows must be a whole number above 0, or several"),
        ("[[call]]\nprogram = 'digits'\nversion = 'x'", "call 1: version must be a whole number, got x"),
        ("[[call]]\nprogram = 'digits'\nshape = [1]", "call 1: shape is unknown, did you mean shapes"),
        ("[[call]]\nprogram = 'digits'\nshapes = {inputs = [1]}", "call 1: run digits: inputs is none of its"),
        ("[[call]]\nprogram = 'digits'\nshapes = {input = [1, 2]}", "call 1: run digits: input must have"),
        (RELU + "[weights]\nw = 3", "weights: w must be a shape such as"),
        (RELU + "[weights]\nw = 'name:x'", "weights: w must be a shape or a .npy file, got name:x"),
        (RELU + "[weights]\nw = {shape = [2], dtype = 'x'}", "weights: w: dtype must be one of"),
        (RELU + "[weights]\nw = {shape = [2], values = 'x'}", "weights: w.values must be one of normal, "),
        (RELU + "[weights]\nw = {shape = [2], seed = 3}", "weights: w: seed is unknown; it has dtype, shape, values"),
        (RELU + "[weights]\nw = [100000, 100000]", "weights: w: shape must be at most"),
    ],
    ids=lambda value: None if value.startswith("[") or "\n" in value else value.replace(" ", "_")[:40],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(mix, text, told):
    with pytest.raises(ValueError) as caught:
        mix(text)
    message = str(caught.value)
    assert "mix.toml: " in message
    assert told in message.split("mix.toml: ", 1)[1]


def test_too_many_kinds_are_refused(mix):
    shapes = [[extent] for extent in range(1, 258)]
    with pytest.raises(ValueError, match="call 1: a mix has at most 256 kinds of calls"):
        mix(f"[[call]]\nfunction = 'relu'\nshapes = {shapes}", settings=SampleSettings(samples=1, verify=False))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"none\.toml: No such file or directory"):
        load(tmp_path / "none.toml", find)
