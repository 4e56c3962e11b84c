"""The store through a real server: weights and programs are put, used and deleted; what is wrong changes nothing."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
import safetensors.numpy
import torch

import layerwire
from layerwire.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from layerwire.v1 import program_pb2, store_pb2, store_pb2_grpc, tensor_pb2
from tests.served import PATIENCE_SECONDS
from tests.through_server.storage.conftest import Stored, X, files_of, ran, scaled

NAMES = ["", ".hidden", "/etc/passwd", "a/../b", "..", "a b", "ü", "x" * 201, "a\0b"]


def test_small_and_large_and_named_weights_are_one_file(lw: layerwire.Client) -> None:
    digest = lw.put_weights("one/small", X)
    assert lw.put_weights("one/pinned", X, pinned=True) == digest
    both = lw.put_weights({"two/a": X, "two/b": torch.ones(3, dtype=torch.float64)})
    assert {weights.name: (weights.digest, weights.key, weights.pinned) for weights in lw.weights("one/")} == {
        "one/pinned": (digest, "tensor", True), "one/small": (digest, "tensor", False),
    }  # fmt: skip
    assert {weights.digest for weights in lw.weights("two/")} == {both}
    assert lw.get_weights("two/b").tolist() == [1.0, 1.0, 1.0]


def test_a_file_is_imported_and_forgotten(lw: layerwire.Client, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"fc.weight": np.arange(8, dtype=np.float32).reshape(2, 4), "fc.bias": np.ones(2, np.float32)}
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    reports: list[tuple[int, int]] = []
    assert lw.import_weights(path, "imported/", progress=lambda *args: reports.append(args)) == [
        "imported/fc.bias", "imported/fc.weight",
    ]  # fmt: skip
    assert reports[-1] == (path.stat().st_size, path.stat().st_size)
    assert lw.upload(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    y = lw.linear(X, "imported/fc.weight", "imported/fc.bias")
    np.testing.assert_array_equal(y, [[7.0, 23.0]])
    lw.delete_weights("imported/fc.bias", "imported/fc.weight")
    assert lw.weights("imported/") == []
    with pytest.raises(NotFoundError):
        lw.linear(X, "imported/fc.weight")


class Cutter:
    """A way to a server that is cut when it is time, once; then it lets everything through."""

    def __init__(self, address: str, time_has_come: Callable[[], bool]) -> None:
        self._target = address.rpartition(":")[::2]
        self._time_has_come = time_has_come
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection((self._target[0], int(self._target[1])))
            for source, sink, counted in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, counted), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
                if counted and not self.cuts and self._time_has_come():
                    self.cuts += 1
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_an_upload_goes_on_after_the_connection_was_cut(stored: Stored, tmp_path: Path) -> None:
    content = np.random.default_rng(2).integers(0, 255, 48 << 20, np.uint8)
    sizes: list[int] = []

    def some_is_there() -> bool:
        return any(part.stat().st_size >= 2 << 20 for part in (stored.store / "uploads").glob("*.part"))

    path = tmp_path / "large.safetensors"
    safetensors.numpy.save_file({"x": content}, path)
    with (
        closing(Cutter(stored.address, some_is_there)) as cutter,
        layerwire.Client(cutter.address, timeout=PATIENCE_SECONDS) as lw,
    ):
        lw.import_weights(path, "cut/", progress=lambda there, _: sizes.append(there))
        assert cutter.cuts == 1
        np.testing.assert_array_equal(lw.get_weights("cut/x"), content)
    (back,) = (index for index in range(1, len(sizes)) if sizes[index] <= sizes[index - 1])
    assert sizes[back] > 2 << 20  # it didn't begin anew


def uploaded(stub: store_pb2_grpc.StoreServiceStub, content: bytes, **changed: object) -> None:
    fields = {"digest": hashlib.sha256(content).hexdigest(), "size": len(content), **changed}
    messages = [store_pb2.UploadRequest(header=store_pb2.UploadHeader(**fields))]  # type: ignore[arg-type]
    stub.Upload(iter([*messages, store_pb2.UploadRequest(data=content)]), timeout=PATIENCE_SECONDS)


def header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "at least 8 bytes"),
        (b"PK\x03\x04" * 100, "the header must be at most"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "the header must be at most"),
        (header(b"{" * 100), "safetensors:"),
        (header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', b"1234"), "data_offsets must cover"),
        (header(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}', b"12345678"), "must span the bytes"),
        (header(b'{"a":{"dtype":"F8","shape":[8],"data_offsets":[0,8]}}', b"12345678"), "dtype must be one of"),
        (header(b'{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,8]}}', b"12345678"), "64 bits"),
    ],
    ids=["empty", "zip", "length", "braces", "truncated", "span", "dtype", "overflow"],
)
def test_a_lying_file_is_refused(
    stub: store_pb2_grpc.StoreServiceStub, stored: Stored, content: bytes, words: str
) -> None:
    before = files_of(stored.store)
    with pytest.raises(grpc.RpcError) as caught:
        uploaded(stub, content)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("upload: ") and words in caught.value.details()
    assert files_of(stored.store) == before


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_with_tricks_are_refused(lw: layerwire.Client, stored: Stored, name: str) -> None:
    lw.put_weights("tricks", X)
    before = lw.weights(), lw.programs(), {path.name for path in stored.store.iterdir()}
    for change in (
        lambda: lw.put_weights(name, X),
        lambda: lw.put_weights({name: X}),
        lambda: lw.put_program(name, scaled(1)),
        lambda: lw.get_weights(name),
        lambda: lw.delete_weights(name),
        lambda: lw.delete_program(name),
    ):
        with pytest.raises(InvalidArgumentError, match="name must be") as caught:
            change()
        assert caught.value.field == "name"
    assert (lw.weights(), lw.programs(), {path.name for path in stored.store.iterdir()}) == before


def test_what_is_not_there_is_not_found(lw: layerwire.Client) -> None:
    lw.put_program("there", scaled(1))
    stored = program_pb2.StoredTensor(digest="0" * 64, key="tensor")
    for ask in (
        lambda: lw.get_weights("nowhere"),
        lambda: lw.delete_weights("tricks", "nowhere"),
        lambda: lw.describe("nowhere"),
        lambda: lw.describe("there", 7),
        lambda: lw.set_default_version("there", 7),
        lambda: lw.delete_program("nowhere"),
        lambda: lw.delete_program("there", 7),
        lambda: lw.run("nowhere", {"x": X}),
    ):
        with pytest.raises(NotFoundError):
            ask()
    program = scaled(1)
    program.constants[0].stored.CopyFrom(stored)
    with pytest.raises(InvalidArgumentError, match="no file with digest 000"):
        lw.put_program("there", program)


def test_versions(lw: layerwire.Client) -> None:
    assert [lw.put_program("v", scaled(factor)).version for factor in (1, 2)] == [1, 2]
    assert lw.put_program("v", scaled(3), version=9, keep_default_version=True).version == 9
    with pytest.raises(FailedPreconditionError, match="has a version 9 already"):
        lw.put_program("v", scaled(4), version=9)
    assert [ran(lw, "v"), ran(lw, "v", 1), ran(lw, "v", 9)] == [4.0, 2.0, 6.0]
    lw.set_default_version("v", 9)
    assert ran(lw, "v") == 6.0
    with pytest.raises(FailedPreconditionError, match="is the default one"):
        lw.delete_program("v", 9)
    lw.delete_program("v", 1)
    (program,) = lw.programs("v")
    assert (program.default_version, [version.version for version in program.versions]) == (9, [2, 9])
    lw.delete_program("v")
    assert lw.programs("v") == []


@pytest.mark.parametrize("change", ["cycle", "unknown", "shape", "huge", "twice"])
def test_a_wrong_program_is_refused_and_named(lw: layerwire.Client, change: str) -> None:
    program = scaled(1)
    if change == "cycle":
        program.nodes[0].inputs[0].value = "shifted"
    if change == "unknown":
        program.nodes[1].inputs[0].value = "nothing"
    if change == "shape":
        program.constants[0].tensor.CopyFrom(
            tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[5], data=bytes(20))
        )
    if change == "huge":
        program.nodes.extend(program.nodes[0] for _ in range(100_000))
    if change == "twice":
        program.nodes.append(program.nodes[1])
    with pytest.raises(InvalidArgumentError) as caught:
        lw.put_program("wrong", program)
    words = {"cycle": "scaled", "unknown": "shifted", "shape": "scaled", "huge": "", "twice": "shifted"}
    assert words[change] in str(caught.value)
    assert lw.programs("wrong") == []
