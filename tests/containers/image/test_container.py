"""What must hold of containers of the image: answers, least privilege, deaths, SIGTERM, the store.

One server goes through most of it; tests that end it come after those that call it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

import layerwire
from tests.containers.image.container import Container
from tests.containers.image.images import Image
from tests.containers.image.podman import MARKS, ToolError

pytestmark = MARKS

SOON_SECONDS = 60.0
COMMAND_SECONDS = 180.0
READ_ONLY = ("/", "/etc", "/opt/layerwire", "/opt/layerwire/lib", "/usr/local", "/var/lib")
WRITABLE = ("/tmp", "/var/lib/layerwire")
COMMANDS = {
    "info": ("info", "127.0.0.1:50051"),
    "bench": (
        "bench", "127.0.0.1:50051", "relu", "--shape", "8,8", "--concurrency", "2", "--verify", "all", "--warmup",
        "100ms", "--window", "200ms", "--duration", "600ms", "--html", "/tmp/page.html",
    ),
}  # fmt: skip
DRAW = "import matplotlib.pyplot as p; p.plot([1, 2]); p.savefig('/tmp/drawn.svg')"
SLOW = {"LAYERWIRE_MAX_DELAY_SECONDS": "1"}  # a lone call waits so long for company
WEIGHTS = np.arange(12, dtype="float32").reshape(3, 4)
Start = Callable[..., Container]


@pytest.fixture(scope="module")
def start(cpu: Image) -> Iterator[Start]:
    """Starts a container, on the same volume as all others."""
    containers: list[Container] = []

    def start_container(*command: str, **options) -> Container:
        containers.append(Container(cpu.name, *command, **options))
        return containers[-1]

    yield start_container
    for container in reversed(containers):  # some are in the network of one before
        container.remove()


@pytest.fixture(scope="module")
def server(start: Start) -> Container:
    """One that serves, by the image's own defaults but without TLS, with a read-only root."""
    container = start()
    assert "ready on 0.0.0.0:50051" in container.first_line(), container.output()
    return container


def test_other_hosts_are_served_by_tls_or_a_word(start: Start) -> None:
    container = start(environment={"LAYERWIRE_INSECURE_LISTEN": ""})
    assert container.wait(SOON_SECONDS) == 2
    assert "give tls_certificate and tls_key, or insecure_listen" in container.output()


@pytest.fixture(scope="module")
def weights(server: Container) -> np.ndarray:
    """What `server` has under the name "kept"."""
    with layerwire.Client(server.address(50051)) as client:
        client.put_weights("kept", WEIGHTS)
    return WEIGHTS


@pytest.fixture(scope="module")
def exit_status(server: Container, weights: np.ndarray) -> int:
    """That of `server`, idle, after SIGTERM."""
    server.terminate()
    return server.wait(SOON_SECONDS)


@pytest.fixture(scope="module")
def successor(start: Start, exit_status: int) -> Container:
    """A server on the volume that `server` left."""
    container = start(environment=SLOW)
    assert "ready on 0.0.0.0:50051" in container.first_line(), container.output()
    return container


def sample(container: Container, name: str) -> float:
    """The sum of a metric's samples, from outside."""
    with urllib.request.urlopen(f"http://{container.address(9464)}/metrics", timeout=SOON_SECONDS) as page:
        families = text_string_to_metric_families(page.read().decode())
    return sum(each.value for family in families for each in family.samples if each.name == name)


def serves(container: Container) -> bool:
    """What grpc.health.v1 says, from outside."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(container.address(50051), options) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SOON_SECONDS)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def wait_until(holds: Callable[[], bool], otherwise: str) -> None:
    """Asks again and again, for what has no event outside a container."""
    deadline = time.monotonic() + SOON_SECONDS
    while not holds():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def names_of_processes(container: Container) -> set[str]:
    return {status["Name"] for status in container.processes().values()}


def test_becomes_ready(server):
    assert names_of_processes(server) >= {"tini", "layerwire"}


def test_no_root_no_capabilities(cpu: Image, server):
    """Every process is the image's user, without a capability, and can gain none."""
    user = cpu.config["User"].partition(":")[0]
    processes = server.processes().values()
    assert len(processes) > 2
    for status in processes:
        capabilities = {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert set(status["Uid"].split()) == {user}, status["Name"]
        assert {int(bits, 16) for bits in capabilities} == {0}, status["Name"]
        assert status["NoNewPrivs"] == "1", status["Name"]


def test_root_filesystem_is_read_only(server):
    """Nothing but /tmp and the store takes a file."""
    for folder in WRITABLE:
        server.execute("sh", "-c", f": > {folder}/probe && rm {folder}/probe")
    mounts = [line.split() for line in server.execute("cat", "/proc/mounts").splitlines()]
    root = next(options for _, place, _, options, *_ in mounts if place == "/")
    assert "ro" in root.split(",")
    for folder in READ_ONLY:
        with pytest.raises(ToolError):
            server.execute("sh", "-c", f": > {folder}/probe")


def test_answers_calls_from_outside(server):
    x = np.linspace(-2, 2, 4096, dtype="float32").reshape(64, 64)
    with layerwire.Client(server.address(50051)) as client:
        assert np.array_equal(client.relu(x), np.maximum(x, 0))
    assert serves(server)


def test_metrics_from_outside(server, weights):
    with layerwire.Client(server.address(50051)) as client:
        client.relu(weights)
    assert sample(server, "layerwire_calls_total") >= 1
    assert sample(server, "layerwire_worker_up") == 1


def test_healthcheck_tells_both_states(cpu: Image, server):
    """Its own words give 0 while it serves, and 1 where nothing listens."""
    kind, *command = cpu.health_check
    assert kind == "CMD"
    server.execute(*command)
    with pytest.raises(ToolError, match=r"exit status 1\n"):
        server.execute(*command, environment={"LAYERWIRE_LISTEN": "0.0.0.0:1"})


@pytest.mark.parametrize("name", COMMANDS)
def test_runs_other_commands(start, server, name):
    """Words after the image's name replace `serve`, and the load tester is among them."""
    container = start(*COMMANDS[name], beside=server)
    assert container.wait(COMMAND_SECONDS) == 0, container.output()


def test_draws_plots(server):
    server.execute("python", "-W", "error", "-c", DRAW)


def test_replaces_a_dead_worker_and_leaves_no_zombies(server):
    """Process 1 reaps strangers too."""
    command_lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in server.processes()}
    os.kill(next(pid for pid, line in command_lines.items() if b"layerwire_server.worker" in line), signal.SIGKILL)
    wait_until(lambda: sample(server, "layerwire_worker_restarts_total") == 1 and serves(server), "no new worker")
    server.execute("sh", "-c", "(exec sleep 0.1) & exit 0")
    wait_until(lambda: "sleep" not in names_of_processes(server), "an orphan isn't reaped")
    assert [status for status in server.processes().values() if "zombie" in status["State"]] == []


def test_sigterm_ends_it(server, exit_status):
    assert exit_status == 0, server.output()


def test_a_new_container_finds_the_store(successor, weights):
    x = np.ones((2, 4), "float32")
    with layerwire.Client(successor.address(50051)) as client:
        assert np.allclose(client.linear(x, "kept"), x @ weights.T)


def test_sigterm_drains(successor):
    """A call that is inside when SIGTERM comes is answered, then it ends with 0."""
    x = np.array([-1.0, 2.0], "float32")
    with layerwire.Client(successor.address(50051)) as client:
        client.wait_ready(SOON_SECONDS)
        future = client.submit.relu(x)
        wait_until(lambda: sample(successor, "layerwire_queue_calls") == 1, "the call never waited")
        successor.terminate()
        assert not future.done(), "the call was over before SIGTERM"
        assert np.array_equal(future.result(), np.maximum(x, 0))
    assert successor.wait(SOON_SECONDS) == 0, successor.output()


def test_sigterm_while_starting_ends_it(start):
    """It comes before Python listens for it, and isn't lost."""
    container = start()
    container.terminate()
    try:
        container.wait(SOON_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(f"runs on for {SOON_SECONDS:g} s")
