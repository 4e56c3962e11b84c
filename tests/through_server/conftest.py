"""One server for all tests here; each test leaves it as it found it, which is asserted."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

import grpc
import pytest

import layerwire
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc
from tests.chaos.conftest import READY


class Served(NamedTuple):
    """Where a server is."""

    address: str
    metrics_address: str

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    import subprocess
    import sys

    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "layerwire.cli", "serve", "--device", "cpu"]
    command += ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--lame-duck-seconds", "0"]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        found = READY.search(process.stdout.readline())
        assert found is not None, log.read_text()
        yield Served(*found.groups())
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture(autouse=True)
def no_worker_dies(served: Served) -> Iterator[None]:
    """Whatever a test here sends, the worker lives on."""
    yield
    assert served.metric("layerwire_worker_restarts_total") == 0
    assert served.metric("layerwire_retried_frames_total") == 0


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[layerwire.Client]:
    with layerwire.Client(served.address, timeout=60.0) as lw:
        yield lw


@pytest.fixture(scope="session")
def stub(served: Served) -> Iterator[layerwire_pb2_grpc.LayerwireServiceStub]:
    """What another client would generate from the contract."""
    options = [("grpc.max_receive_message_length", 1 << 26), ("grpc.max_send_message_length", 1 << 26)]
    with grpc.insecure_channel(served.address, options) as channel:
        yield layerwire_pb2_grpc.LayerwireServiceStub(channel)  # type: ignore[no-untyped-call]


METHODS = {name: name.capitalize() for name in ("pool", "unpool", "linear", "activate", "convolve", "normalize")}


def unary(stub: layerwire_pb2_grpc.LayerwireServiceStub, call: pb.Call) -> grpc.Future:
    """A stream's call sent by its unary RPC."""
    family = call.WhichOneof("request")
    assert family is not None
    future: grpc.Future = getattr(stub, METHODS[family]).future(getattr(call, family), timeout=60)
    return future
