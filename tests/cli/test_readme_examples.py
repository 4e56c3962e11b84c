"""The README's examples do what it says, against a real server."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import sys

import grpc
import numpy as np
import pytest
import safetensors.numpy
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha import reflection_pb2

import layerwire
from tests.readme_tables import README

TEXT = README.read_text()
SERVICE = "layerwire.v1.LayerwireService"


def block(language: str, first_words: str) -> str:
    """The code block that begins so."""
    blocks = re.findall(rf"```{language}\n({re.escape(first_words)}.*?)```", TEXT, flags=re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def test_python(address):
    code = block("python", "import layerwire\nimport numpy")
    assert len([line for line in code.splitlines() if line]) <= 12
    assert "localhost:50051" in code
    names: dict = {}
    exec(compile(code.replace("localhost:50051", address), "README.md", "exec"), names)
    assert names["back"].shape == (1, 3, 32, 32)
    assert np.count_nonzero(names["back"]) == names["y"].size
    assert np.allclose(names["scores"], names["back"].sum(), atol=1e-3)
    assert [np.array_equal(row, plane.clip(0)) for row, plane in zip(names["rows"], names["x"][0], strict=True)] == [
        True
    ] * 3


def test_a_network_of_your_own(address):
    names: dict = {}
    for start in ("import layerwire\nimport torch", "with layerwire.Client"):
        exec(compile(block("python", start).replace("localhost:50051", address), "README.md", "exec"), names)
    model, images = copy.deepcopy(names["model"]).eval(), names["images"]
    expected = model(images)
    remote = block("python", "import layerwire.nn").replace("localhost:50051", address)
    exec(compile(remote, "README.md", "exec"), names)  # trains, so the running statistics move
    assert torch.allclose(names["scores"], expected, atol=1e-4)
    assert set(names["features"]) == {"output", "2"}
    assert torch.allclose(names["features"]["output"], expected, atol=1e-4)
    assert all(weight.grad is not None for weight in names["network"].parameters())
    triton = block("python", "import numpy as np\nimport tritonclient").replace("localhost:50051", address)
    # In a process of its own: two packages may not both register the messages of `inference`.
    printed = subprocess.run([sys.executable, "-c", triton], capture_output=True, text=True, check=True).stdout
    ones = model(torch.ones(1, 1, 28, 28))
    assert np.allclose(np.array(re.findall(r"-?[\d.]+(?:e-?\d+)?", printed), float), ones.detach()[0], atol=1e-4)


class Reflection:
    """What a client without the .proto files learns from the server, by grpc.reflection.v1 as grpcurl does."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._ask = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        self.pool = descriptor_pool.DescriptorPool()

    def ask(self, **question: str) -> reflection_pb2.ServerReflectionResponse:
        return next(self._ask(iter([reflection_pb2.ServerReflectionRequest(**question)])))

    def service(self, name: str):
        for content in self.ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto:
            self._add(descriptor_pb2.FileDescriptorProto.FromString(content))
        return self.pool.FindServiceByName(name)

    def _add(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        for name in file.dependency:
            self._fetch(name)
        self.pool.Add(file)

    def _fetch(self, name: str) -> None:
        for content in self.ask(file_by_filename=name).file_descriptor_response.file_descriptor_proto:
            self._add(descriptor_pb2.FileDescriptorProto.FromString(content))


def test_another_client_by_reflection(address):
    words = shlex.split(block("", "grpcurl"))
    target, (service, _, method) = words[-2], words[-1].rpartition("/")
    assert (words[:2], target, service) == (["grpcurl", "-plaintext"], "localhost:50051", SERVICE)
    with grpc.insecure_channel(address) as channel:
        reflection = Reflection(channel)
        listed = reflection.ask(list_services="").list_services_response.service
        assert SERVICE in {one.name for one in listed}
        rpc = reflection.service(SERVICE).methods_by_name[method]
        request, answer = map(message_factory.GetMessageClass, (rpc.input_type, rpc.output_type))
        call = channel.unary_unary(f"/{words[-1]}", request.SerializeToString, answer.FromString)
        got = call(json_format.Parse(words[words.index("-d") + 1], request()), timeout=300)
    assert json_format.MessageToDict(got, preserving_proto_field_name=True) == json.loads(block("json", "{"))


# tests/layerwire_bench has those of the load tester, tests/through_server/test_access.py those of tokens and TLS.
COMMANDS = [
    line for line in TEXT.splitlines() if re.match(r"layerwire (?!bench |token )", line) and "--token" not in line
]


@pytest.mark.parametrize("line", COMMANDS)
def test_command_line(cli, address, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)[1:]
    if words[0] == "serve":
        assert cli(*words, "--help").exit_code == 0
        return
    shape = (1, 4) if "linear" in words else (1, 3, 8, 8)
    np.save("x.npy", np.ones(shape, np.float32))
    np.save("w.npy", np.ones((2, 4), np.float32))
    safetensors.numpy.save_file({"weight": np.ones((2, 4), np.float32)}, "model.safetensors")
    if "linear" in words:
        assert cli("put-weights", address, "classifier.weight", "w.npy").exit_code == 0
    if "digits" in words:
        np.save("images.npy", np.ones((2, 1, 28, 28), np.float32))
        with layerwire.Client(address) as lw:
            lw.deploy("digits", torch.nn.Conv2d(1, 1, 3), torch.ones(2, 1, 28, 28))
    result = cli(*[word.replace("localhost:50051", address) for word in words])
    assert result.exit_code == 0, result.output
