"""The store through real servers: what is put outlives them, what is wrong changes nothing, names move under load."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import pytest
import safetensors.numpy
import torch

import layerwire
from layerwire.demo import server
from layerwire.errors import (
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from layerwire.v1 import program_pb2, store_pb2, store_pb2_grpc, tensor_pb2

X = np.ones((1, 4), np.float32)
FLAGS = ("--device", "cpu", "--lame-duck-seconds", "0")
NAMES = ["", ".hidden", "/etc/passwd", "a/../b", "..", "a b", "ü", "x" * 201, "a\0b"]


@contextmanager
def serving(directory: Path, *flags: str) -> Iterator[str]:
    log = directory / f"log{len(list(directory.iterdir()))}"
    with server.running(log, *FLAGS, "--store", str(directory / "store"), *flags) as (address, _):
        yield address


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server of two workers with a store on disk."""
    directory = tmp_path_factory.mktemp("kept")
    with serving(directory, "--workers", "2") as address:
        yield address, directory / "store"


@pytest.fixture
def lw(kept: tuple[str, Path]) -> Iterator[layerwire.Client]:
    with layerwire.Client(kept[0]) as client:
        yield client


@pytest.fixture
def stub(kept: tuple[str, Path]) -> Iterator[store_pb2_grpc.StoreServiceStub]:  # type: ignore[override]
    with grpc.insecure_channel(kept[0]) as channel:
        yield store_pb2_grpc.StoreServiceStub(channel)  # type: ignore[no-untyped-call]


def scaled(factor: float) -> program_pb2.Program:
    """x * factor + factor, by two constants: an answer that mixes two versions is neither's."""
    data = np.full(4, factor, np.float32).tobytes()
    constants = [
        program_pb2.Constant(
            name=name, tensor=tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[4], data=data)
        )
        for name in ("scale", "shift")
    ]
    nodes = [
        program_pb2.Node(
            name="scaled", inputs=_inputs("x", "scale"),
            transform=program_pb2.TransformOperator(multiply=program_pb2.Multiply()),
        ),
        program_pb2.Node(
            name="shifted", inputs=_inputs("scaled", "shift"),
            transform=program_pb2.TransformOperator(add=program_pb2.Add()),
        ),
    ]  # fmt: skip
    x = program_pb2.ProgramInput(name="x", dtype=tensor_pb2.DATA_TYPE_FLOAT32, shape=[-1, 4])
    return program_pb2.Program(
        inputs=[x], constants=constants, nodes=nodes, outputs=[program_pb2.ProgramOutput(name="y", value="shifted")]
    )


def _inputs(first: str, second: str) -> list[program_pb2.NodeInput]:
    return [program_pb2.NodeInput(field="input", value=first), program_pb2.NodeInput(field="other", value=second)]


def files_of(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def ran(lw: layerwire.Client, name: str, version: int | None = None) -> float:
    """The one number that all elements of the answer have."""
    y = lw.run(name, {"x": X}, version=version)["y"]
    assert (y == y.flat[0]).all(), y
    return float(y.flat[0])


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()).eval()
    large = np.random.default_rng(1).normal(size=(700, 500))
    with serving(tmp_path) as address, layerwire.Client(address) as lw:
        lw.put_weights("small", X)
        lw.put_weights("large", large, pinned=True)
        lw.deploy("net", module, torch.ones(1, 4))
        lw.put_program("p", scaled(2))
        lw.put_program("p", scaled(3), keep_default_version=True)
        before = lw.weights(), lw.programs()
    with serving(tmp_path) as address, layerwire.Client(address) as lw:
        assert (lw.weights(), lw.programs()) == before
        np.testing.assert_array_equal(lw.get_weights("large"), large)
        np.testing.assert_array_equal(lw.linear(X, "small"), X @ X.T)
        torch.testing.assert_close(lw.program("net")(torch.ones(2, 4)), module(torch.ones(2, 4)).detach())
        assert (ran(lw, "p"), ran(lw, "p", 2)) == (4.0, 6.0)
        described = lw.describe("net")
        assert [node.operator for node in described.nodes] == ["linear", "relu"]
        assert (described.parameters, described.nodes[0].parameters) == (15, 15)


def test_small_and_large_and_named_weights_are_one_file(lw: layerwire.Client) -> None:
    digest = lw.put_weights("one/small", X)
    assert lw.put_weights("one/pinned", X, pinned=True) == digest
    both = lw.put_weights({"two/a": X, "two/b": torch.ones(3, dtype=torch.float64)})
    assert {found.name: (found.digest, found.key, found.pinned) for found in lw.weights("one/")} == {
        "one/pinned": (digest, "tensor", True), "one/small": (digest, "tensor", False),
    }  # fmt: skip
    assert {found.digest for found in lw.weights("two/")} == {both}
    assert lw.get_weights("two/b").tolist() == [1.0, 1.0, 1.0]


def test_a_file_is_imported_and_forgotten(lw: layerwire.Client, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"fc.weight": np.arange(8, dtype=np.float32).reshape(2, 4), "fc.bias": np.ones(2, np.float32)}
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt"})
    told: list[tuple[int, int]] = []
    assert lw.import_weights(path, "imported/", progress=lambda *args: told.append(args)) == [
        "imported/fc.bias", "imported/fc.weight",
    ]  # fmt: skip
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
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


def test_an_upload_goes_on_after_the_connection_was_cut(kept: tuple[str, Path], tmp_path: Path) -> None:
    content = np.random.default_rng(2).integers(0, 255, 48 << 20, np.uint8)
    told: list[int] = []

    def some_is_there() -> bool:
        return any(part.stat().st_size >= 2 << 20 for part in (kept[1] / "uploads").glob("*.part"))

    path = tmp_path / "large.safetensors"
    safetensors.numpy.save_file({"x": content}, path)
    with closing(Cutter(kept[0], some_is_there)) as cutter, layerwire.Client(cutter.address) as lw:
        lw.import_weights(path, "cut/", progress=lambda there, _: told.append(there))
        assert cutter.cuts == 1
        np.testing.assert_array_equal(lw.get_weights("cut/x"), content)
    (back,) = (index for index in range(1, len(told)) if told[index] <= told[index - 1])
    assert told[back] > 2 << 20  # it didn't begin anew


def uploaded(stub: store_pb2_grpc.StoreServiceStub, content: bytes, **changed: object) -> None:
    told = {"digest": hashlib.sha256(content).hexdigest(), "size": len(content), **changed}
    messages = [store_pb2.UploadRequest(header=store_pb2.UploadHeader(**told))]  # type: ignore[arg-type]
    stub.Upload(iter([*messages, store_pb2.UploadRequest(data=content)]), timeout=30)


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
    stub: store_pb2_grpc.StoreServiceStub, kept: tuple[str, Path], content: bytes, words: str
) -> None:
    before = files_of(kept[1])
    with pytest.raises(grpc.RpcError) as caught:
        uploaded(stub, content)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("upload: ") and words in caught.value.details()
    assert files_of(kept[1]) == before


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_with_tricks_are_refused(lw: layerwire.Client, kept: tuple[str, Path], name: str) -> None:
    lw.put_weights("tricks", X)
    before = lw.weights(), lw.programs(), {path.name for path in kept[1].iterdir()}
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
    assert (lw.weights(), lw.programs(), {path.name for path in kept[1].iterdir()}) == before


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
    (found,) = lw.programs("v")
    assert (found.default_version, [version.version for version in found.versions]) == (9, [2, 9])
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


CALLERS, MOVES = 32, 100


class Callers:
    """Threads that call a program until they are told to stop; what they got, and what went wrong."""

    def __init__(self, lw: layerwire.Client, name: str) -> None:
        self.values: set[float] = set()
        self.errors: list[Exception] = []
        self.calls = 0
        self._lw, self._name = lw, name
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]

    def _call(self) -> None:
        while not self._stop.is_set():
            try:
                self.values.add(ran(self._lw, self._name))
                self.calls += 1
            except Exception as error:
                self.errors.append(error)
                return

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_name_moves_a_hundred_times_under_load(lw: layerwire.Client) -> None:
    for factor in (1, 2):
        lw.put_program("moving", scaled(factor))
    with Callers(lw, "moving") as callers:
        for move in range(MOVES):
            version = move % 2 + 1
            lw.set_default_version("moving", version)
            assert ran(lw, "moving") == 2.0 * version  # whoever asks after the move gets the new one
    assert callers.errors == []
    assert callers.values == {2.0, 4.0}
    assert callers.calls > CALLERS


def test_weights_and_programs_deleted_under_load(lw: layerwire.Client) -> None:
    for name in ("steady", "doomed"):
        lw.put_program(name, scaled(1))
    with Callers(lw, "steady") as steady, Callers(lw, "doomed") as doomed:
        while not doomed.calls:
            ran(lw, "steady")
        lw.delete_program("doomed")
        with pytest.raises(NotFoundError):
            ran(lw, "doomed")
        for number in range(20):
            lw.put_weights(f"loaded/{number}", X * number)
            np.testing.assert_array_equal(lw.linear(X, f"loaded/{number}"), [[4.0 * number]])
            lw.delete_weights(f"loaded/{number}")
    assert steady.errors == [] and steady.values == {2.0}
    assert len(doomed.errors) == CALLERS and {type(error) for error in doomed.errors} == {NotFoundError}
    assert doomed.values == {2.0}


def test_a_damaged_file_is_told_of(tmp_path: Path) -> None:
    with serving(tmp_path) as address, layerwire.Client(address) as lw:
        digest = lw.put_weights("w", X)
    path = tmp_path / "store" / "weights" / f"{digest}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with serving(tmp_path) as address, layerwire.Client(address) as lw:
        for ask in (lambda: lw.get_weights("w"), lambda: lw.linear(X, "w")):
            with pytest.raises(DataLossError, match="is damaged"):
                ask()
        assert [found.name for found in lw.weights()] == ["w"]
        assert lw.put_weights("w", X) == digest  # which mends it
        np.testing.assert_array_equal(lw.linear(X, "w"), X @ X.T)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB of its own."""
    folder = tmp_path / "store"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path, disk: Path) -> None:
    with serving(tmp_path) as address, layerwire.Client(address) as lw:
        lw.put_weights("w", X)
        before = files_of(disk)
        with pytest.raises(ResourceExhaustedError, match="disk is full"):
            lw.put_weights("large", np.zeros(4 << 20, np.uint8))
        assert {name: files_of(disk)[name] for name in before} == before
        np.testing.assert_array_equal(lw.linear(X, "w"), X @ X.T)
        lw.put_weights("small", X * 2)


def test_a_store_that_is_mounted_read_only(tmp_path: Path, disk: Path) -> None:
    with serving(tmp_path) as address, layerwire.Client(address) as lw:
        lw.put_weights("w", X)
        lw.put_program("p", scaled(1))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with serving(tmp_path) as address, layerwire.Client(address) as lw:
        np.testing.assert_array_equal(lw.linear(X, "w"), X @ X.T)
        np.testing.assert_array_equal(lw.get_weights("w"), X)
        assert ran(lw, "p") == 2.0
        for change in (
            lambda: lw.put_weights("v", X),
            lambda: lw.put_weights("v", np.zeros(2 << 20, np.uint8)),
            lambda: lw.delete_weights("w"),
            lambda: lw.put_program("p", scaled(2)),
            lambda: lw.set_default_version("p", 1),
            lambda: lw.delete_program("p"),
        ):
            with pytest.raises(FailedPreconditionError, match="can't be written"):
                change()
    assert any("the store is read-only" in path.read_text() for path in tmp_path.glob("log*"))


def test_over_the_stores_own_limit(tmp_path: Path) -> None:
    with serving(tmp_path, "--max-store-bytes", "1MiB") as address, layerwire.Client(address) as lw:
        lw.put_weights("w", X)
        lw.put_weights("half", np.zeros(600_000, np.uint8))
        for nbytes in (600_001, 3 << 19):  # as one message, and in pieces
            with pytest.raises(ResourceExhaustedError, match="limit of bytes"):
                lw.put_weights("large", np.zeros(nbytes, np.uint8))
        assert [found.name for found in lw.weights()] == ["half", "w"]
        assert not list((tmp_path / "store" / "uploads").iterdir())
