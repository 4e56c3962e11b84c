"""The commands about what a server keeps: lists, descriptions, imports, default versions, deletions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
import torch

import layerwire
from layerwire.demo import server
from layerwire.v1 import program_pb2


@pytest.fixture
def lw(address):
    with layerwire.Client(address) as client:
        yield client


@pytest.fixture
def net(lw, request):
    """A deployed network with a batch norm to fold, under a name of the test's own; two versions."""
    name = f"cli/{request.node.originalname}"
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
    for _ in range(2):
        lw.deploy(name, module, torch.ones(1, 3, 6, 6))
    return name


@pytest.fixture
def file(tmp_path):
    """A safetensors file of two tensors."""
    path = tmp_path / "model.safetensors"
    tensors = {"fc.weight": np.arange(8, dtype=np.float32).reshape(2, 4), "fc.bias": np.ones(2, np.float32)}
    safetensors.numpy.save_file(tensors, path)
    return path


def test_programs(cli, address, net):
    (program,) = json.loads(cli("programs", address, "--json", "--prefix", net).stdout)
    assert (program["name"], program["default_version"]) == (net, 2)
    assert [version["version"] for version in program["versions"]] == [1, 2]
    shown = cli("programs", address).stdout
    assert net in shown
    assert "2 (default)" in shown


def test_no_programs(cli, address):
    assert cli("programs", address, "--prefix", "nothing/like/it").stdout == "no programs\n"
    assert json.loads(cli("weights", address, "--prefix", "nothing/like/it", "--json").stdout) == []
    assert cli("weights", address, "--prefix", "nothing/like/it").stdout == "no weights\n"


def test_describe(cli, address, net):
    program = json.loads(cli("describe", address, net, "--json").stdout)
    assert [node["operator"] for node in program["nodes"]] == ["conv2d", "batch_norm", "relu"]
    conv, norm, relu = program["nodes"]
    assert conv["outputs"] == relu["outputs"] == ["float32 [1, 8, 4, 4]"]
    assert (conv["parameters"], norm["parameters"]) == (3 * 8 * 9 + 8, 4 * 8)
    assert (norm["folded_into"], norm["floating_point_operations"]) == (conv["name"], 0)
    assert conv["floating_point_operations"] >= 2 * 27 * 8 * 16
    assert program["floating_point_operations"] == sum(node["floating_point_operations"] for node in program["nodes"])
    assert program["inputs"][0]["tensor"] == "float32 [-1, 3, 6, 6]"
    assert program["outputs"][0]["tensor"] == "float32 [-1, 8, 4, 4]"
    assert program["batched"] is True
    shown = cli("describe", address, net, "--version", 1).stdout
    for words in ("version 1", "conv2d", "float32 [1, 8, 4, 4]", f"in {conv['name']}", "total", "calls share batches"):
        assert words in shown


def test_names_that_others_chose_do_not_steer_the_terminal(cli, address, lw, request):
    name, evil, spelled = f"cli/{request.node.name}", "\x1b[2J[/]\u202e", r"\x1b[2J[/]\u202e"
    program = program_pb2.Program(
        inputs=[program_pb2.ProgramInput(name="x", dtype="DATA_TYPE_FLOAT32", shape=[-1, 1])],
        nodes=[program_pb2.Node(name=evil, inputs=[program_pb2.NodeInput(field="input", value="x")])],
        outputs=[program_pb2.ProgramOutput(name=evil, value=evil)],
    )
    program.nodes[0].activate.relu.SetInParent()
    lw.put_program(name, program)
    for result in (cli("describe", address, name), cli("run", address, name, "--input", "x=[[1]]")):
        assert result.exit_code == 0, result.output
        assert spelled in result.stdout
        assert "\x1b" not in result.stdout


def test_describe_nothing(cli, address):
    result = cli("describe", address, "cli/nothing")
    assert (result.exit_code, result.stderr) == (1, "Error: no program named 'cli/nothing' (not found)\n")


def test_run(cli, address, lw, net, tmp_path):
    image = np.linspace(-1, 1, 108, dtype=np.float32).reshape(1, 3, 6, 6)
    np.save(tmp_path / "x.npy", image)
    files = ["--input", f"input={tmp_path / 'x.npy'}", "--output", f"output={tmp_path / 'y.npy'}"]
    result = cli("run", address, net, *files, "--intermediate", "1", "--version", "1")
    assert result.exit_code == 0, result.output
    expected = lw.run(net, {"input": image}, intermediates=["1"])
    assert np.array_equal(np.load(tmp_path / "y.npy"), expected["output"])
    assert [line.split(" ")[0] for line in result.stdout.splitlines()][:2] == ["output:", "1:"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--input", "x"], "must be NAME=VALUE"),
        (["--input", "x=[1]"], "run: inputs must be among input, got 'x' (invalid argument)"),
        (["--input", "input=[[1]]"], "input must have shape [-1, 3, 6, 6], got [1, 1] (invalid argument)"),
        (["--input", "input=nothing.npy"], "nothing.npy"),
        ([], "--input"),
    ],
)
def test_run_refused(cli, address, net, args, words):
    result = cli("run", address, net, *args)
    assert result.exit_code in (1, 2)
    assert words in result.stderr


def test_use_and_delete(cli, address, lw, net):
    assert cli("use", address, net, 1).stdout == f"{net}: version 1\n"
    assert lw.programs(net)[0].default_version == 1
    refused = cli("delete", address, net, "--version", 1)
    assert (refused.exit_code, "move the default first" in refused.stderr) == (1, True)
    assert cli("delete", address, net, "--version", 2).exit_code == 0
    assert [version.version for version in lw.programs(net)[0].versions] == [1]
    assert cli("delete", address, net).exit_code == 0
    assert lw.programs(net) == []


@pytest.mark.parametrize("args", [["a", "b", "--version", "1"], ["a", "--weights", "--version", "1"]], ids=["two", "w"])
def test_delete_needs_one_program_for_a_version(cli, address, args):
    assert cli("delete", address, *args).exit_code == 2


def test_import_over_the_wire(cli, address, lw, file):
    result = cli("import", address, file, "--prefix", "cli/imported/", "--pinned")
    assert (result.exit_code, result.stdout) == (0, "cli/imported/fc.bias\ncli/imported/fc.weight\n")
    bias, weight = lw.weights("cli/imported/")
    assert (bias.shape, weight.shape, weight.pinned) == ((2,), (2, 4), True)
    shown = cli("weights", address, "--prefix", "cli/imported/").stdout
    for words in ("cli/imported/fc.weight", "float32 [2, 4]", weight.digest[:16]):
        assert words in shown
    assert cli("delete", address, "--weights", bias.name, weight.name).exit_code == 0
    assert lw.weights("cli/imported/") == []


def test_import_into_a_directory_that_a_server_then_serves(cli, file, tmp_path):
    store = tmp_path / "store"
    result = cli("import", "--store", store, file, "--prefix", "net/")
    assert (result.exit_code, result.stdout) == (0, "net/fc.bias\nnet/fc.weight\n")
    with (
        server.serve(tmp_path / "log", "--device", "cpu", "--store", str(store)) as (address, _),
        layerwire.Client(address) as lw,
    ):
        y = lw.linear(np.ones((1, 4), np.float32), "net/fc.weight", "net/fc.bias")
    assert y.tolist() == [[7.0, 23.0]]


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["FILE"], 2, "must be ADDRESS and FILE"),
        (["--store", "STORE", "a:1", "FILE"], 2, "must be ADDRESS and FILE"),
        (["--store", "STORE", "FILE", "--prefix", "../"], 1, "name must be"),
        (["--store", "STORE", "nowhere.safetensors"], 2, "there is no file nowhere.safetensors"),
        (["--store", "STORE", "OTHER"], 1, "safetensors:"),
        (["ADDRESS", "OTHER"], 1, "must be a safetensors file"),
    ],
    ids=["no-address", "both", "tricks", "missing", "no-safetensors", "no-safetensors-there"],
)
def test_import_refused(cli, address, file, tmp_path, args, status, words):
    (tmp_path / "other").write_bytes(b"\xff" * 40)
    known = {"FILE": file, "STORE": tmp_path / "store", "ADDRESS": address, "OTHER": tmp_path / "other"}
    result = cli("import", *(known.get(arg, arg) for arg in args))
    assert result.exit_code == status
    assert words in result.stderr
