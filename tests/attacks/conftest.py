"""A server to attack, and a bystander: a healthy client that must not notice."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import layerwire
from tests.attacks.http2 import Flooder
from tests.served import PATIENCE_SECONDS, Server

MIB = 1024**2
BEARABLE_SECONDS = 0.2  # a bystander's median; an unprotected grpcio server makes it 0.33 s under rapid resets
BEARABLE_RATIO = 10  # to a median at a server that isn't attacked, where the machine is so busy that this is more

_SAMPLE_SECONDS = 0.01


def serving(server: Server) -> bool:
    """Whether it tells a new client that it is well, at once or when the machine has let it try a canary call."""
    with grpc.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest()
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=PATIENCE_SECONDS)
        return any(state.status == health_pb2.HealthCheckResponse.SERVING for state in watch)


def resident_bytes(pid: int) -> int:
    """What a process has in memory."""
    try:
        resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except FileNotFoundError:
        return 0  # that it is gone is seen by its absence from Server.processes
    return 0 if resident is None else int(resident[1]) * 1024


class Bystander:
    """Calls all the time, checks every answer, and watches the server's memory.

    Every fourth call is to a server that isn't attacked, on the same machine at the same time.
    """

    def __init__(self, target: Server, neighbour: Server) -> None:
        self._target, self._neighbour = target, neighbour
        self._stop = threading.Event()
        self._condition = threading.Condition()
        self._error: BaseException | None = None
        self.seconds: list[float] = []
        self.neighbour_seconds: list[float] = []
        self.roles = target.processes()
        self.peak_bytes = dict.fromkeys(self.roles, 0)
        self._threads = [threading.Thread(target=work) for work in (self._call, self._watch)]
        for thread in self._threads:
            thread.start()

    def after(self, answers: int) -> None:
        """Returns when so many more answers have come."""
        with self._condition:
            goal = len(self.seconds) + answers
            came = self._condition.wait_for(lambda: self._error or len(self.seconds) >= goal, PATIENCE_SECONDS)
            assert came, "no answers any more"
        if self._error is not None:
            raise self._error

    def begin(self) -> None:
        """What was measured before is no part of it."""
        self.peak_bytes = {pid: resident_bytes(pid) for pid in self.roles}
        self.seconds.clear()
        self.neighbour_seconds.clear()

    def end(self) -> None:
        """Ends it; raises what it met."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def _call(self) -> None:
        random = np.random.default_rng(0)
        options = {"timeout": PATIENCE_SECONDS, "retries": 0}
        try:
            with (
                layerwire.Client(self._target.address, **options) as lw,
                layerwire.Client(self._neighbour.address, **options) as other,
            ):
                while not self._stop.is_set():
                    x = random.normal(size=(2, 8)).astype(np.float32)
                    if len(self.seconds) % 3 == 0:
                        self.neighbour_seconds.append(_seconds_of_a_call(other, x))
                    seconds = _seconds_of_a_call(lw, x)
                    with self._condition:
                        self.seconds.append(seconds)
                        self._condition.notify_all()
        except BaseException as error:
            with self._condition:
                self._error = error
                self._condition.notify_all()

    def _watch(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            for pid in self.roles:
                self.peak_bytes[pid] = max(self.peak_bytes[pid], resident_bytes(pid))


def _seconds_of_a_call(lw: layerwire.Client, x: np.ndarray) -> float:
    begun = time.perf_counter()
    np.testing.assert_array_equal(lw.relu(x), np.maximum(x, 0))
    return time.perf_counter() - begun


class Unharmed(Protocol):
    """`with unharmed(target, growth_bytes):` see the fixture."""

    def __call__(
        self, target: Server, growth_bytes: int, worker_bytes: int | None = None
    ) -> AbstractContextManager[None]: ...


@pytest.fixture
def unharmed(served: Server) -> Unharmed:
    """Within, a server is attacked, and nobody suffers: see what is asserted."""

    @contextmanager
    def attacked(target: Server, growth_bytes: int, worker_bytes: int | None = None) -> Iterator[None]:
        bystander = Bystander(target, served)
        try:
            bystander.after(20)
            bystander.begin()
            start = dict(bystander.peak_bytes)
            yield
            bystander.after(20)
            during, elsewhere = statistics.median(bystander.seconds), statistics.median(bystander.neighbour_seconds)
            bystander.after(200)
        finally:
            bystander.end()
        growth = {role: bystander.peak_bytes[pid] - start[pid] for pid, role in bystander.roles.items()}
        grown = ", ".join(f"{role} {nbytes / MIB:+.0f} MiB" for role, nbytes in growth.items())
        print(f"bystander's median {during * 1e3:.1f} ms, elsewhere {elsewhere * 1e3:.1f} ms; {grown}")
        assert target.processes() == bystander.roles
        assert serving(target)
        assert during < max(BEARABLE_SECONDS, BEARABLE_RATIO * elsewhere)
        assert max(growth.values()) < growth_bytes, grown
        assert growth["worker"] < (worker_bytes or growth_bytes), grown

    return attacked


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is attacked by all tests that need no other: none may harm it."""
    server = Server(tmp_path_factory.mktemp("target"))
    yield server
    server.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers of the test's own: `start(*flags, modules={"worker": "module"})`."""
    servers: list[Server] = []

    def make(*flags: str, **modules: dict[str, str]) -> Server:
        servers.append(Server(tmp_path, *flags, **modules))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


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
