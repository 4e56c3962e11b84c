"""Servers to break, with a device that breaks on demand, and callers that keep them busy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import layerwire
from tests.served import PATIENCE_SECONDS, Server

PAUSE_SECONDS = 0.001  # of a caller between calls: what dies needs the processor to come back


class FaultyServer(Server):
    """A server whose device breaks on demand."""

    def __init__(self, folder: Path, *flags: str) -> None:
        super().__init__(folder, *flags, modules={"worker": "tests.chaos.faulty_worker"})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with flags."""
    servers: list[Server] = []

    def make(*flags: str) -> Server:
        servers.append(FaultyServer(tmp_path, *flags))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


class Load:
    """Callers that each wait for their answer and check it; the test sets its pace by `after`."""

    def __init__(self, client: layerwire.Client, callers: int = 8) -> None:
        self._client = client
        self._condition = threading.Condition()
        self._stop = threading.Event()
        self.answers = 0
        self._threads = ThreadPoolExecutor(callers)
        self._futures = [self._threads.submit(self._call, seed) for seed in range(callers)]

    def _call(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        weight = random.normal(size=(4, 8)).astype(np.float32)
        while not self._stop.wait(PAUSE_SECONDS):
            x = random.normal(size=(int(random.integers(1, 5)), 8)).astype(np.float32)
            np.testing.assert_array_equal(self._client.relu(x), np.maximum(x, 0))
            np.testing.assert_allclose(self._client.linear(x, weight), x @ weight.T, rtol=1e-4, atol=1e-5)
            with self._condition:
                self.answers += 2
                self._condition.notify_all()

    def after(self, answers: int) -> None:
        """Returns when so many more answers have come."""
        with self._condition:
            goal = self.answers + answers
            while self.answers < goal:
                assert self._condition.wait(PATIENCE_SECONDS), "no answers come any more"
                for future in self._futures:
                    if future.done():
                        future.result()

    def end(self) -> int:
        """Ends the callers; raises what any of them met. Returns how many answers came."""
        self._stop.set()
        for future in self._futures:
            future.result(PATIENCE_SECONDS)
        self._threads.shutdown()
        return self.answers
