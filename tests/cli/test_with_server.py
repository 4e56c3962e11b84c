"""The commands against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent import futures
from importlib.metadata import version
from pathlib import Path

import grpc
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from layerwire_server.operators import OPERATORS

NOBODY = "127.0.0.1:1"


@pytest.fixture
def npy(tmp_path):
    """Writes an array to a .npy file and gives its path."""

    def save(name, array):
        path = tmp_path / name
        np.save(path, array)
        return path

    return save


def test_health_of_a_serving_server(cli, address):
    result = cli("health", address)
    assert (result.exit_code, result.stdout) == (0, f"{address}: serving\n")


def test_health_of_an_unknown_service(cli, address):
    result = cli("health", address, "--service", "nonsense")
    assert (result.exit_code, result.stderr) == (1, f"{address}: unknown service\n")


@pytest.mark.parametrize("command", ["health", "info"])
@pytest.mark.parametrize("wrong", ["", "localhost", "localhost:0"], ids=["empty", "no-port", "port-0"])
def test_an_address_without_port_is_refused(cli, command, wrong):
    result = cli(command, wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == f'Error: address must be "host:port", got "{wrong}"'


def test_health_of_nobody(cli):
    result = cli("health", NOBODY)
    assert (result.exit_code, result.stderr) == (2, f"{NOBODY}: unreachable\n")


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [(b"\x08\x02", 1, "not serving"), (b"", 1, "unknown"), (None, 1, "has no health service")],
    ids=["not-serving", "unknown", "no-health-service"],
)
def test_health_of_others(cli, answer, status, words):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    if answer is not None:
        check = grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})]
        )
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        result = cli("health", address)
    finally:
        server.stop(None).wait()
    assert (result.exit_code, result.stderr) == (status, f"{address}: {words}\n")


def test_health_waits_no_longer_than_told(cli):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    gone = futures.Future()

    def never(_request, context):
        context.add_callback(lambda: gone.set_result(None))
        gone.result()

    check = grpc.unary_unary_rpc_method_handler(never)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        result = cli("health", address, "--timeout", "0.2")
    finally:
        server.stop(None).wait()
    assert (result.exit_code, result.stderr) == (2, f"{address}: no answer in time\n")


def test_info_as_json(cli, address):
    info = json.loads(cli("info", address, "--json").stdout)
    assert info["version"] == version("layerwire")
    assert info["torch_version"] == torch.__version__
    assert info["workers"][0]["device"] == "cpu"
    assert info["workers"][0]["healthy"] is True
    assert info["limits"]["max_queue_calls"] > 0
    assert {name for family in OPERATORS.values() for name in family} <= set(info["operators"])


def test_info_for_people(cli, address):
    shown = cli("info", address).stdout
    assert f"layerwire {version('layerwire')}, torch {torch.__version__}" in shown
    for words in ("Workers", "cpu", "Limits", "max_message_bytes", "64 MiB", "Operators", "max_pool"):
        assert words in shown


def test_info_of_nobody_is_one_line(cli):
    result = cli("info", NOBODY)
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {NOBODY}: connection refused; is a server running there? (unavailable)\n",
    )


def test_call_from_file_to_files(cli, address, npy, tmp_path):
    x = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    y, indices = tmp_path / "y", tmp_path / "indices.npy"
    result = cli(
        "call", address, "max_pool2d", "--input", npy("x.npy", x), "--kernel-size", "2,3", "--stride", 2,
        "--ceil-mode", "--return-indices", "--output", y, "--output", indices,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    values, places = F.max_pool2d(torch.from_numpy(x), (2, 3), 2, ceil_mode=True, return_indices=True)
    assert np.array_equal(np.load(y), values.numpy())
    assert np.array_equal(np.load(indices), places.numpy())
    assert result.stdout.splitlines()[0].startswith(f"{y}  float32 {list(values.shape)}")


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["relu", "--input", "[-1, 2, -3, 4]"], "[0., 2., 0., 4.]"),
        (["adaptive_avg_pool1d", "--input", "[[1, 2, 3, 6]]", "--output-size", "none"], "[[1., 2., 3., 6.]]"),
        (["max_unpool1d", "--input", "[[5]]", "--indices", "[[1]]", "--kernel-size", "2"], "[[0., 5.]]"),
        (["conv1d", "--input", "[[1, 2, 3]]", "--weight", "[[[1, 1, 1]]]", "--padding", "same"], "[[3., 6., 5.]]"),
        (["avg_pool1d", "--input", "[[4, 4]]", "--kernel-size", "2", "--padding", "1", "--no-count-include-pad"], "4."),
        (["gelu", "--input", "0", "--approximate", "tanh"], "0."),
        (["batch_norm", "--input", "[[1, 2], [3, 4]]", "--training", "--return-statistics"], "[2., 3.]"),
        (["relu", "--input", "[1e39]", "--dtype", "float64"], "[1.e+39]"),
        (["relu", "--input", "[-1, 2]", "--dtype", "int8"], "int8 [2]"),
        (["softmax", "--input", "[0, 0]", "--dim", "0", "--dtype", "float64"], "float64 [2]"),
        (["softplus", "--input", "[0]", "--beta", "2", "--deterministic"], "[0.346573"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_call_shows_small_answers(cli, address, args, shown):
    result = cli("call", address, *args)
    assert result.exit_code == 0, result.output
    assert shown in result.stdout


@pytest.mark.parametrize(
    ("args", "status", "lines"),
    [(["relu", "--input", "1"], 0, 0), (["max_pool2d", "--input", "1", "--kernel-size", "0"], 1, 1)],
    ids=["done", "refused"],
)
def test_a_process_says_no_more_than_it_should(address, args, status, lines):
    """In a process of its own, where threads, loops and channels end at exit."""
    for _ in range(5):  # what gRPC complains of at exit depends on who is first
        words = [sys.executable, "-m", "layerwire.cli", "call", address, *args]
        call = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (call.returncode, len(call.stderr.splitlines())) == (status, lines), call.stderr


def test_call_shows_no_large_answer(cli, address, npy):
    result = cli("call", address, "relu", "--input", npy("x.npy", np.ones((100, 100), np.float32)))
    assert result.stdout == "float32 [100, 100]  min 1  max 1\n"


def test_call_with_timing(cli, address):
    shown = cli("call", address, "relu", "--input", "1", "--timing").stdout
    for name in ("total", "queue", "copy_in", "kernel", "copy_out"):
        assert any(line.startswith(name) and line.endswith(" ms") for line in shown.splitlines())
    assert "1 calls" in shown
    assert "(cpu)" in shown


def test_call_with_stored_weights(cli, address, npy):
    weight = np.tile(np.arange(1, 4, dtype=np.float32), (4, 1))
    put = cli("put-weights", address, "cli/weight", npy("w.npy", weight))
    assert (put.exit_code, put.stdout) == (0, "cli/weight: float32 [4, 3]\n")
    result = cli("call", address, "linear", "--input", "[1, 2, 3]", "--weight", "name:cli/weight")
    assert "[14., 14., 14., 14.]" in result.stdout


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["max_pool2d", "--input", "[[[1]]]", "--kernel-size", "0"], 1, "max_pool2d: kernel_size"),
        (["linear", "--input", "[1]", "--weight", "name:cli/nowhere"], 1, "cli/nowhere"),
        (["relu", "--input", "1", "--output", "a", "--output", "b"], 2, "relu gave 1, 2 files are named"),
    ],
    ids=["argument", "weights", "files"],
)
def test_call_refused(cli, address, args, status, words):
    result = cli("call", address, *args)
    assert result.exit_code == status
    *usage, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    assert words in last
    assert (usage == []) == (status == 1)


@pytest.mark.parametrize(
    ("file", "words"),
    [("missing/y.npy", "there is no directory"), ("", "is a directory")],
    ids=["no-directory", "directory"],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_call(cli, tmp_path, file, words):
    result = cli("call", NOBODY, "relu", "--input", "1", "--output", tmp_path / file)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"Error: Invalid value for '--output': {tmp_path / file}: {words}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line(cli, address):
    result = cli("call", address, "relu", "--input", "1", "--output", "/dev/full")
    assert (result.exit_code, result.stderr) == (1, "Error: --output: /dev/full: No space left on device\n")


def test_a_bad_name_for_weights_is_told_the_rule(cli, address, npy):
    result = cli("put-weights", address, "../w", npy("w.npy", np.ones(1, np.float32)))
    assert result.exit_code == 1
    assert "name must be 1 to 200 letters, digits, '.', '_', '-' or '/', not starting with" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_call_of_nobody_is_one_line(cli):
    result = cli("call", NOBODY, "relu", "--input", "1", "--timeout", "0.3")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_call_refuses_an_address_without_port(cli):
    result = cli("call", "localhost", "relu", "--input", "1")
    assert result.exit_code == 2
    assert 'address must be "host:port"' in result.stderr
