"""What tests of monitoring need: Debian's prometheus, a server, and a Prometheus on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.chaos.conftest import FaultyServer
from tests.monitoring.prometheus import Prometheus, start_prometheus


class Deployment(NamedTuple):
    """A server with a short queue, and the Prometheus in a hurry that scrapes it."""

    server: FaultyServer
    prometheus: Prometheus


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool; skips where it isn't."""
    path = shutil.which("promtool")
    if path is None or shutil.which("prometheus") is None:
        pytest.skip("needs Debian's package prometheus")
    return path


@pytest.fixture(scope="module")
def deployment(promtool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server that nobody has called."""
    directory = tmp_path_factory.mktemp("deployment")
    flags = {"threads": 1, "max-queue-calls": 100, "canary-interval-seconds": 0.2, "unavailable-after-seconds": 60}
    server = FaultyServer(directory, *(f"--{name}={value}" for name, value in flags.items()))
    try:
        with start_prometheus(directory, server.metrics_address) as prometheus:
            yield Deployment(server, prometheus)
    finally:
        server.close()
