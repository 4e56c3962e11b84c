"""What all tests share: a server, whether there is a CUDA device, and the word about it."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator

import pytest
import torch

from tests.served import Server

CUDA = torch.cuda.is_available()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

for name in [name for name in os.environ if name.startswith("LAYERWIRE_CLIENT_")]:
    del os.environ[name]
os.environ["LAYERWIRE_CLIENT_CONFIG"] = os.devnull  # no test takes anything from the user's own file


def pytest_report_header() -> str:
    return f"cuda: {torch.cuda.get_device_name()}" if CUDA else "cuda: no device, tests marked gpu are skipped"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CUDA:
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no garbage collection looks at it again."""
    gc.freeze()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of all tests that leave it well, with a store of the programs of through_server/inference."""
    from tests.through_server.inference import programs

    folder = tmp_path_factory.mktemp("served")
    server = Server(folder, "--store", str(folder / "store"))
    programs.put(server.address)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def no_worker_dies(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test sends to the server that it shares with others, the worker lives on."""
    yield
    if "served" in request.fixturenames:
        counts = request.getfixturevalue("served").metrics(
            "layerwire_worker_restarts_total", "layerwire_retried_frames_total"
        )
        assert counts == [0, 0]


@pytest.fixture(autouse=True)
def threads_stay() -> Iterator[None]:
    """What runs in this process may set torch's threads; a lone plane's mean depends on their number."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
