"""Deploying through a store in memory: what is sent and what is compared."""

from __future__ import annotations

import hashlib
import json
import struct

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from layerwire.deploy import RemoteProgram, deploy
from layerwire.errors import InvalidArgumentError
from layerwire.export import export
from layerwire.store.uploads import UploadReport
from layerwire.v1 import store_pb2
from layerwire.wire.safetensors import SafetensorsFile
from tests.interpreter import run
from tests.networks import NETWORKS, build, inputs


class MemoryStore:
    """Files and programs in dicts, the interpreter as the worker."""

    def __init__(self):
        self.files, self.programs = {}, {}

    def upload(self, file, progress):
        sent = 0 if file.digest in self.files else file.size_bytes
        self.files[file.digest] = b"".join(file.pieces())
        assert hashlib.sha256(self.files[file.digest]).hexdigest() == file.digest
        if progress is not None:
            progress(file.size_bytes, file.size_bytes)
        return UploadReport(file.size_bytes, sent)

    def put_program(self, request):
        versions = self.programs.setdefault(request.name, [])
        versions.append(request.program)
        return store_pb2.PutProgramResponse(name=request.name, version=len(versions), digest="0" * 64)

    def run(self, name, version, inputs):
        program = self.programs[name][(version or 0) - 1]
        weights = {}
        for constant in program.constants:
            if constant.WhichOneof("content") == "stored":
                weights.update(safetensors.torch.load(self.files[constant.stored.digest]))
        is_numpy = any(isinstance(array, np.ndarray) for array in inputs.values())
        outputs = run(program, {key: torch.as_tensor(array) for key, array in inputs.items()}, weights)
        return {key: tensor.numpy() if is_numpy else tensor for key, tensor in outputs.items()}


def big_linear():
    """Weights of more than two pieces."""
    return build(lambda: nn.Linear(900, 800))


def test_deployed_program_answers_as_the_module():
    store, network = MemoryStore(), NETWORKS["segnet"]
    module = build(network.make)
    remote = deploy(store, "segnet", module, *inputs(network, 1))
    (x,) = inputs(network, 3)
    torch.testing.assert_close(remote(x), module(x).detach())
    assert isinstance(remote(x.numpy()), np.ndarray)
    report = remote.report
    assert (report.name, report.version, report.free_batch) == ("segnet", 1, True)
    assert report.sent_bytes == report.weights_bytes == len(next(iter(store.files.values())))
    assert report.largest_difference < 1e-4 < report.magnitudes["output"]
    assert "segnet version 1" in str(report)


def test_file_that_is_there_is_not_sent():
    store, progress = MemoryStore(), []
    first = deploy(store, "net", big_linear(), torch.ones(1, 900))
    again = deploy(store, "net", big_linear(), torch.ones(1, 900), progress=lambda *args: progress.append(args))
    assert (first.report.version, again.report.version) == (1, 2)
    assert again.report.sent_bytes == 0
    assert progress == [(again.report.weights_bytes, again.report.weights_bytes)]


def test_differences_are_told():
    class Wrong(MemoryStore):
        def run(self, name, version, inputs):
            outputs = super().run(name, version, inputs)
            outputs["output"][0, 0] += 0.25
            outputs["output"][0, 1] = float("nan")
            return outputs

    remote = deploy(Wrong(), "net", build(lambda: nn.Linear(3, 2)), torch.ones(1, 3))
    assert remote.report.largest_difference == float("inf")


def test_arguments_by_name_and_number():
    remote = RemoteProgram(MemoryStore().run, "net", ["x", "y"])
    for args, named in [((1,), {}), ((1, 2, 3), {}), ((1,), {"x": 2}), ((1, 2), {"z": 3})]:
        with pytest.raises(InvalidArgumentError, match="net: inputs must be x, y, got "):
            remote(*args, **named)


def test_program_without_its_module():
    store = MemoryStore()
    deploy(store, "pair", nn.ReLU(), torch.ones(1, 3))
    remote = RemoteProgram(store.run, "pair", ["input"])
    assert remote(input=torch.tensor([[-1.0, 2.0]])).tolist() == [[0.0, 2.0]]
    assert repr(remote) == "RemoteProgram('pair')"


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 100, 4000])
def test_pieces_from_an_offset(offset):
    file = export(build(NETWORKS["lenet"].make), *inputs(NETWORKS["lenet"], 1)).weights
    whole = b"".join(file.pieces())
    assert b"".join(file.pieces(offset, piece_bytes=999)) == whole[offset:]
    assert max(len(piece) for piece in file.pieces(offset, piece_bytes=999)) <= 999


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint8, torch.bool,
]  # fmt: skip


def test_file_is_safetensors():
    from layerwire.export.weights import content

    tensors = {f"{dtype}"[6:]: torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    tensors |= {"strided": torch.arange(6.0).reshape(2, 3).t(), "none": torch.zeros(0, 4), "one": torch.tensor(3.0)}
    file = SafetensorsFile({key: content(tensor) for key, tensor in tensors.items()})
    whole = b"".join(file.pieces())
    assert len(whole) == file.size_bytes
    assert hashlib.sha256(whole).hexdigest() == file.digest
    read = safetensors.torch.load(whole)
    assert set(read) == set(tensors)
    for key, tensor in tensors.items():
        assert read[key].dtype == tensor.dtype
        assert torch.equal(read[key], tensor)
    (length,) = struct.unpack("<Q", whole[:8])
    assert (8 + length) % 64 == 0
    for entry in json.loads(whole[8 : 8 + length]).values():
        width = torch.empty(0, dtype=getattr(torch, entry["dtype"], torch.uint8)).element_size()
        assert entry["data_offsets"][0] % width == 0


def test_content_of_the_wrong_length_is_refused():
    from layerwire.wire.safetensors import Content

    file = SafetensorsFile({"a": Content(1, (2,), lambda: memoryview(b"1234"))})
    with pytest.raises(ValueError, match="tensor a has 4 bytes, its shape needs 8"):
        list(file.pieces())


def test_weights_are_not_copied():
    module = big_linear()
    exported = export(module, torch.ones(1, 900))
    assert exported.tensors["weight"].data_ptr() == module.weight.data_ptr()
    assert np.shares_memory(
        np.frombuffer(exported.weights.contents["weight"].read(), np.uint8), module.weight.detach().numpy()
    )
