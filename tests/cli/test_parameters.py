"""What stands on the command line for tensors, sizes and numbers; no server needed."""

from __future__ import annotations

import inspect

import click
import numpy as np
import pytest
from click.testing import CliRunner

from layerwire.cli import main
from layerwire.cli.call import CONTROLS, functions
from layerwire.cli.parameters import READERS, indices, load_npy, numbers, optional_size, size, size_or_word, tensor

NOWHERE = "127.0.0.1:1"  # none of these gets as far as a server


def cli(*args: str):
    return CliRunner().invoke(main, args)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (size, "2", 2),
        (size, "2,3", [2, 3]),
        (size, "-1", -1),
        (optional_size, "none,4", [None, 4]),
        (optional_size, "none", [None]),
        (size_or_word, "same", "same"),
        (size_or_word, "1,2", [1, 2]),
        (numbers, "0.5", 0.5),
        (numbers, "0.5,0.25", [0.5, 0.25]),
        (tensor, "name:classifier.weight", "classifier.weight"),
    ],
)
def test_reads(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "dtype", "value"),
    [
        (tensor, "[[1, 2], [3, 4]]", "float32", [[1, 2], [3, 4]]),
        (tensor, "-1.5", "float32", -1.5),
        (tensor, "[Infinity]", "float32", [np.inf]),
        (tensor, "[true, false]", "float32", [1, 0]),
        (indices, "[0, 3]", "int64", [0, 3]),
    ],
)
def test_reads_numbers_as_tensor(read, text, dtype, value):
    array = read(text)
    assert array.dtype == dtype
    assert array.tolist() == value


def test_reads_npy(tmp_path):
    array = np.arange(6, dtype=np.float16).reshape(2, 3)
    np.save(tmp_path / "x.npy", array)
    loaded = tensor(str(tmp_path / "x.npy"))
    assert loaded.dtype == array.dtype
    assert (loaded == array).all()


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (size, "2,b", "must be integers such as 2 or 2,2"),
        (size, "", "must be integers"),
        (optional_size, "nine", "must be integers"),
        (numbers, "1,x", "must be numbers"),
        (tensor, "[1, [2]]", "neither a file nor numbers"),
        (tensor, "[1, a]", "neither a file nor numbers"),
        (tensor, '["1"]', "neither a file nor numbers"),
        (tensor, "[1, null]", "neither a file nor numbers"),
        (tensor, "[1, 1e39]", "1e\\+39 doesn't fit in float32; --dtype float64"),
        (indices, "[1e400]", "doesn't fit in int64"),
        (indices, "[0, 1.5]", "1.5 doesn't fit in int64"),
        (tensor, "missing.npy", "No such file"),
    ],
)
def test_refuses(read, text, words):
    with pytest.raises(click.BadParameter, match=words):
        read(text)


def write_objects(path):
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def write_archive(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(1), b=np.zeros(1))


FILES = {"text": lambda path: path.write_text("hello"), "empty": lambda path: path.touch(), "archive": write_archive}


@pytest.mark.parametrize("write", [*FILES.values(), write_objects], ids=[*FILES, "objects"])
def test_refuses_files_that_are_no_array_of_numbers(tmp_path, write):
    write(tmp_path / "x.npy")
    with pytest.raises(click.BadParameter, match=r"x\.npy: "):
        load_npy(str(tmp_path / "x.npy"))


@pytest.mark.parametrize("name", sorted(functions()))
def test_every_parameter_of_a_function_is_an_option(name):
    shown = cli("call", NOWHERE, name, "--help")
    assert shown.exit_code == 0, shown.output
    for parameter in inspect.signature(functions()[name]).parameters:
        if parameter not in CONTROLS:
            assert "--" + parameter.strip("_").replace("_", "-") in shown.output


def test_no_reader_is_left_over():
    signatures = (inspect.signature(method).parameters.values() for method in functions().values())
    used = {parameter.annotation for parameters in signatures for parameter in parameters}
    assert set(READERS) <= used


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["relo", "--input", "1"], "did you mean relu"),
        (["zzzz", "--input", "1"], "see layerwire call --list"),
        ([], "FUNCTION is missing"),
        (["relu", "--input", "300", "--dtype", "int8"], "300 doesn't fit in int8"),
        (["relu", "--dtype", "int4", "--input", "1"], "int4: must be one of float32"),
        (["max_pool2d", "--input", "1"], "Missing option '--kernel-size'"),
        (["max_pool2d", "--input", "1", "--kernel-size", "x"], "must be integers"),
        (["relu", "--input", "1", "--alpha", "2"], "No such option"),
        (["relu", "--input", "1", "--timeout", "0"], "0"),
    ],
    ids=["almost", "unknown", "no-function", "range", "dtype", "missing", "wrong", "foreign", "timeout"],
)
def test_usage_errors(args, words):
    result = cli("call", NOWHERE, *args)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_forgotten_address_is_told():
    result = cli("call", "relu", "--input", "1")
    assert (result.exit_code, result.output.splitlines()[-1]) == (
        2, "Error: ADDRESS is missing: layerwire call ADDRESS relu ..."
    )  # fmt: skip


def test_a_file_is_converted_where_it_is_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", np.array([1.0, 1e39]))
    context = click.Context(click.Command("call"))
    context.params["dtype"] = "float16"
    assert tensor(str(tmp_path / "x.npy")).dtype == "float64"
    with pytest.raises(click.BadParameter, match=r"x\.npy: 1e\+39 doesn't fit in float16"):
        tensor.convert(str(tmp_path / "x.npy"), None, context)
    assert indices.convert("[1]", None, context).dtype == "int64"
    assert tensor.convert("[1]", None, context).dtype == "float16"


def test_list_shows_every_function_with_its_parameters():
    lines = cli("call", "--list").output.splitlines()
    assert len(lines) == len(functions())
    assert "max_unpool2d(input, indices, kernel_size, stride, padding, output_size)" in lines
