"""A server with faulty workers, its processes, and callers that keep it busy."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import layerwire

READY = re.compile(r"ready on (\S+) .*metrics on ([^\s)]+)")


class Server:
    """A server to break."""

    def __init__(self, tmp_path: Path, *flags: str) -> None:
        self._command = [sys.executable, "-m", "tests.chaos.server", "--device", "cpu", "--lame-duck-seconds", "0.1"]
        self._command += flags
        self._log = (tmp_path / "log").open("ab")
        self._environment = os.environ | {"LAYERWIRE_TEST_MARK": str(tmp_path / "mark")}
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        """Starts it, on the port it had before."""
        flags = ["--listen", self.address, "--metrics", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*self._command, *flags], stdout=subprocess.PIPE, stderr=self._log, text=True, env=self._environment
        )
        assert self.process.stdout is not None
        found = READY.search(self.process.stdout.readline())
        assert found is not None, "the server did not start"
        self.address, self.metrics_address = found.groups()

    def stop(self) -> int:
        """Stops it as an orchestrator does, and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        return self.process.returncode

    def pids(self, role: str) -> list[int]:
        """Processes of a role, "worker" or "gateway"."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if role in Path(f"/proc/{pid}/cmdline").read_text()]

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}(\{{|\s)", line))

    def close(self) -> None:
        """Ends it for good."""
        if self.process.poll() is None:
            self.stop()
        self._log.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server with flags."""
    servers: list[Server] = []

    def make(*flags: str) -> Server:
        servers.append(Server(tmp_path, *flags))
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
        self.answered = 0
        self._threads = ThreadPoolExecutor(callers)
        self._futures = [self._threads.submit(self._call, seed) for seed in range(callers)]

    def _call(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        weight = random.normal(size=(4, 8)).astype(np.float32)
        while not self._stop.is_set():
            x = random.normal(size=(int(random.integers(1, 5)), 8)).astype(np.float32)
            np.testing.assert_array_equal(self._client.relu(x), np.maximum(x, 0))
            np.testing.assert_allclose(self._client.linear(x, weight), x @ weight.T, rtol=1e-4, atol=1e-5)
            with self._condition:
                self.answered += 2
                self._condition.notify_all()

    def after(self, answers: int) -> None:
        """Returns when so many more answers have come."""
        with self._condition:
            goal = self.answered + answers
            while self.answered < goal:
                assert self._condition.wait(60), "no answers come any more"
                for future in self._futures:
                    if future.done():
                        future.result()

    def end(self) -> int:
        """Ends the callers; raises what any of them met. Returns how many answers came."""
        self._stop.set()
        for future in self._futures:
            future.result(60)
        self._threads.shutdown()
        return self.answered
