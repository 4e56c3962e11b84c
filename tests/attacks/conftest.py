"""A server to attack, and a bystander: a healthy client that must not notice."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import layerwire
from tests.attacks.http2 import Flooder
from tests.chaos.conftest import READY

MIB = 1024**2
BEARABLE_SECONDS = 0.2  # a bystander's median; an unprotected grpcio server makes it 0.33 s under rapid resets

_SAMPLE_SECONDS = 0.01


class Target:
    """A server's processes, and how they are."""

    def __init__(self, command: Sequence[str], directory: Path, *flags: str) -> None:
        log = directory / "log"
        line = [sys.executable, "-m", *command, "--device", "cpu", "--lame-duck-seconds", "0", *flags]
        line += ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
        environment = os.environ | {"LAYERWIRE_TEST_MARK": str(directory / "mark")}
        with log.open("wb") as errors:
            self._process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        assert self._process.stdout is not None
        match = READY.search(self._process.stdout.readline())
        assert match is not None, log.read_text()
        self.address = match[1]

    def pids(self) -> dict[int, str]:
        """Its processes and what each is for."""
        root = self._process.pid
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
        return {root: "supervisor"} | {int(pid): _role(pid) for pid in children}

    def serving(self) -> bool:
        """Whether it tells a new client that it is well."""
        with grpc.insecure_channel(self.address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(check.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Stops it as an orchestrator does."""
        self._process.terminate()
        self._process.communicate(timeout=30)
        assert self._process.returncode == 0


def _role(pid: str) -> str:
    return "worker" if "worker" in Path(f"/proc/{pid}/cmdline").read_text() else "gateway"


def resident_bytes(pid: int) -> int:
    """What a process has in memory."""
    try:
        match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except FileNotFoundError:
        return 0  # that it is gone shows in its absence from Target.pids
    return 0 if match is None else int(match[1]) * 1024


class Bystander:
    """Calls all the time, checks every answer, and watches the server's memory."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self.seconds: list[float] = []
        self.pids = target.pids()
        self.peak_bytes = dict.fromkeys(self.pids, 0)
        self._threads = [threading.Thread(target=work) for work in (self._call, self._watch)]
        for thread in self._threads:
            thread.start()

    def after(self, answers: int) -> None:
        """Returns when so many more answers have come."""
        with self._changed:
            goal = len(self.seconds) + answers
            assert self._changed.wait_for(lambda: self._error or len(self.seconds) >= goal, 30), "no answers any more"
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Ends it; raises what it met."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def _call(self) -> None:
        random = np.random.default_rng(0)
        try:
            with layerwire.Client(self._target.address, timeout=10, retries=0) as lw:
                while not self._stop.is_set():
                    x = random.normal(size=(2, 8)).astype(np.float32)
                    begun = time.perf_counter()
                    np.testing.assert_array_equal(lw.relu(x), np.maximum(x, 0))
                    with self._changed:
                        self.seconds.append(time.perf_counter() - begun)
                        self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            for pid in self.pids:
                self.peak_bytes[pid] = max(self.peak_bytes[pid], resident_bytes(pid))


@contextmanager
def unharmed(target: Target, growth_bytes: int, worker_bytes: int | None = None) -> Iterator[None]:
    """Within, the server is attacked, and nobody suffers: see what is asserted."""
    bystander = Bystander(target)
    try:
        bystander.after(100)
        before = statistics.median(bystander.seconds)
        start = {pid: resident_bytes(pid) for pid in bystander.pids}
        bystander.seconds.clear()
        bystander.peak_bytes = dict(start)
        yield
        bystander.after(20)
        during = statistics.median(bystander.seconds)
        bystander.after(200)
    finally:
        bystander.end()
    growth = {role: bystander.peak_bytes[pid] - start[pid] for pid, role in bystander.pids.items()}
    summary = ", ".join(f"{role} {nbytes / MIB:+.0f} MiB" for role, nbytes in growth.items())
    print(f"bystander's median {before * 1e3:.1f} -> {during * 1e3:.1f} ms; {summary}")
    assert target.pids() == bystander.pids
    assert target.serving()
    assert during < BEARABLE_SECONDS
    assert max(growth.values()) < growth_bytes, summary
    assert growth["worker"] < (worker_bytes or growth_bytes), summary


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(["layerwire.cli", "serve"], tmp_path_factory.mktemp("target"))
    yield target
    target.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Target]]:
    """Starts servers of the test's own: `start(["module"], *flags)`."""
    targets: list[Target] = []

    def make(command: Sequence[str], *flags: str) -> Target:
        targets.append(Target(command, tmp_path, *flags))
        return targets[-1]

    yield make
    for one in targets:
        one.close()


@pytest.fixture
def flooder() -> Iterator[Callable[..., Flooder]]:
    """Makes flooders that stay connected until the test is over."""
    flooders: list[Flooder] = []

    def make(address: str, *args: int) -> Flooder:
        flooders.append(Flooder(address, *args))
        return flooders[-1]

    yield make
    for one in flooders:
        one.close()
