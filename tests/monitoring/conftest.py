"""What tests of monitoring need: Debian's prometheus, a server, and a Prometheus on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.chaos.conftest import FaultyServer as Server
from tests.monitoring.prometheus import Prometheus, started


class Monitored(NamedTuple):
    """A server with a short queue, and the Prometheus in a hurry that scrapes it."""

    server: Server
    prometheus: Prometheus


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool; skips where it isn't."""
    found = shutil.which("promtool")
    if found is None or shutil.which("prometheus") is None:
        pytest.skip("needs Debian's package prometheus")
    return found


@pytest.fixture(scope="module")
def monitored(promtool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    """A server that nobody has called."""
    directory = tmp_path_factory.mktemp("monitored")
    flags = {"threads": 1, "max-queue-calls": 100, "canary-interval-seconds": 0.2, "unavailable-after-seconds": 60}
    server = Server(directory, *(f"--{name}={value}" for name, value in flags.items()))
    try:
        with started(directory, server.metrics_address) as prometheus:
            yield Monitored(server, prometheus)
    finally:
        server.close()
