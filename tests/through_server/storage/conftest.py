"""A server of two workers whose store can be looked into, its clients, and a program that shows its version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import pytest

import layerwire
from layerwire.v1 import program_pb2, store_pb2_grpc, tensor_pb2
from tests.served import PATIENCE_SECONDS, Server

X = np.ones((1, 4), np.float32)


class Stored(NamedTuple):
    """Where a server is, and its store."""

    address: str
    store: Path


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    folder = tmp_path_factory.mktemp("stored")
    server = Server(folder, "--store", str(folder / "store"), "--workers", "2")
    yield Stored(server.address, folder / "store")
    server.close()


@pytest.fixture
def lw(stored: Stored) -> Iterator[layerwire.Client]:
    with layerwire.Client(stored.address, timeout=PATIENCE_SECONDS) as client:
        yield client


@pytest.fixture
def stub(stored: Stored) -> Iterator[store_pb2_grpc.StoreServiceStub]:
    with grpc.insecure_channel(stored.address) as channel:
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
    """What clients put there, by path; what workers note of frequent calls comes when it likes."""
    paths = [path for path in store.rglob("*") if path.is_file() and path.parent.name != "hot"]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths}


def ran(lw: layerwire.Client, name: str, version: int | None = None) -> float:
    """The one number that all elements of the answer have."""
    y = lw.run(name, {"x": X}, version=version)["y"]
    assert (y == y.flat[0]).all(), y
    return float(y.flat[0])
