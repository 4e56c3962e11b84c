"""One server with programs in its store for all tests here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import layerwire
from layerwire.inference_v2 import open_inference_pb2 as oip
from tests.chaos.conftest import READY
from tests.inference import programs
from tests.through_server.conftest import Served

SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "layerwire.cli", "serve", "--device", "cpu", "--store", str(folder / "store")]
    command += ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--lame-duck-seconds", "0"]
    with (folder / "log").open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        found = READY.search(process.stdout.readline())
        assert found is not None, (folder / "log").read_text()
        address, metrics_address = found.groups()
        programs.put(address)
        yield Served(address, metrics_address)
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.fixture(autouse=True)
def no_worker_dies(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test here sends, the worker lives on."""
    yield
    if "served" in request.fixturenames:
        served = request.getfixturevalue("served")
        assert served.metric("layerwire_worker_restarts_total") == 0
        assert served.metric("layerwire_retried_frames_total") == 0


@pytest.fixture(scope="session")
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address) as channel:
        yield channel


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[layerwire.Client]:
    with layerwire.Client(served.address, timeout=60.0) as lw:
        yield lw


@pytest.fixture(scope="session")
def ask(channel: grpc.Channel) -> Callable[..., Any]:
    """Calls a unary method: `ask("ModelReady", name="linear")`."""

    def call(method: str, message: Any = None, *, timeout: float = 60, **fields: Any) -> Any:
        message = getattr(oip, f"{method}Request")(**fields) if message is None else message
        response = getattr(oip, f"{method}Response")
        return channel.unary_unary(SERVICE + method, type(message).SerializeToString, response.FromString)(
            message, timeout=timeout
        )

    return call
