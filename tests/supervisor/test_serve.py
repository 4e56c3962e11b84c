"""`layerwire serve` as a process of its own, as a user starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from layerwire_server.supervisor import ports

READY = re.compile(r"layerwire \S+ ready on (\S+) \(1 worker on cpu, metrics on (\S+)\) in \d+\.\d s\n")
# With patience for children that stop on a busy machine.
SERVE = """
from layerwire_server.supervisor import supervisor
from layerwire_server.supervisor.command import serve
supervisor._STOP_ROOM_SECONDS = 300.0
serve()
"""


class Server:
    """A server with its own directory and free ports."""

    def __init__(self, directory, *flags):
        self.directory = directory
        self.log = directory / "log"
        flags = ("--device", "cpu", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", *flags)
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, *flags],
                env={**os.environ, "TMPDIR": str(directory)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ready(self):
        """The addresses of gRPC and metrics, from its first line."""
        line = self.process.stdout.readline()
        match = READY.fullmatch(line)
        assert match, line + self.log.read_text()
        return match[1], match[2]

    def pids(self, role):
        pids = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(path.read_text().rpartition(")")[2].split()[1])
                command = (path.parent / "cmdline").read_text()
            except OSError:
                continue
            if parent == self.process.pid and f"layerwire_server.{role}" in command:
                pids.append(int(path.parent.name))
        return pids

    def close(self):
        self.process.kill()
        self.process.wait(300)
        self.process.stdout.close()


@pytest.fixture
def short_path():
    """A directory for servers' own: with one of pytest's the paths of their sockets would be too long."""
    with tempfile.TemporaryDirectory(prefix="test-") as path:
        yield Path(path)


@pytest.fixture
def server(short_path):
    servers = []

    def make(*flags):
        directory = short_path / str(len(servers))
        directory.mkdir()
        servers.append(Server(directory, *flags))
        return servers[-1]

    yield make
    for one in servers:
        one.close()


def serving(address):
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=300).status == 1


def wait_until_serving(address, state):
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=300, wait_for_ready=True
        )
        for answer in watch:
            if (answer.status == 1) == state:
                watch.cancel()
                return


def sample(address, name, **labels):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=300) as page:
        text = page.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_from_the_ready_line_to_a_clean_end(server):
    one = server()
    address, metrics = one.ready()
    assert serving(address)
    assert sample(metrics, "layerwire_worker_up", worker="0") == 1
    assert sample(metrics, "layerwire_process_resident_memory_bytes") < 600e6
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(300) == 0
    assert one.process.stdout.read() == ""
    assert list(one.directory.iterdir()) == [one.log]


def test_the_log_tells_of_start_death_and_end(server, monkeypatch):
    monkeypatch.setenv("LAYERWIRE_WROKERS", "2")
    one = server("--log-level", "debug", "--log-format", "json")
    address, _ = one.ready()
    (worker,) = one.pids("worker")
    os.kill(worker, signal.SIGKILL)
    wait_until_serving(address, False)
    wait_until_serving(address, True)
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(300) == 0
    lines = [json.loads(line) for line in one.log.read_text().splitlines()]
    misspelt = next(line for line in lines if line["message"] == "a variable is no setting")
    assert (misspelt["variable"], misspelt["nearest"]) == ("LAYERWIRE_WROKERS", "LAYERWIRE_WORKERS")
    messages = [line["message"] for line in lines if line["process"] == "supervisor" and line["level"] != "warning"]
    assert messages[0] == "server starts" and messages[-1] == "server stopped"
    of_worker = [line["message"] for line in lines if line.get("child") == "worker-0"]
    assert of_worker == ["child started", "child is ready", "child died", *("child started", "child is ready"),
                         "child stopped"]  # fmt: skip
    died = next(line for line in lines if line["message"] == "child died")
    assert (died["status"], died["pid"], died["level"]) == ("SIGKILL", worker, "error")
    assert next(line for line in lines if line["message"] == "server drains")["signal"] == "SIGTERM"
    assert not [line for line in lines if not line.get("logger", "layerwire").startswith("layerwire")]


def test_a_watch_that_stays_open_does_not_hold_up_the_end(server):
    one = server("--grace-seconds", "600")
    address, _ = one.ready()
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=300)
        assert next(watch).status == 1
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(300) == 0  # of 600 s of grace
        assert next(watch).status == 2


def test_killed_children_come_back(server):
    one = server()
    address, metrics = one.ready()
    (worker,) = one.pids("worker")
    os.kill(worker, signal.SIGKILL)
    wait_until_serving(address, False)
    wait_until_serving(address, True)
    assert sample(metrics, "layerwire_worker_restarts_total", worker="0") == 1
    (gateway,) = one.pids("gateway")
    os.kill(gateway, signal.SIGKILL)
    wait_until_serving(address, True)
    assert sample(metrics, "layerwire_gateway_restarts_total", gateway="0") == 1


def test_children_do_not_outlive_a_killed_supervisor(server):
    one = server()
    one.ready()
    watched = [os.pidfd_open(pid) for role in ("worker", "gateway") for pid in one.pids(role)]
    one.process.kill()
    for descriptor in watched:
        with os.fdopen(descriptor):
            _wait_for_end(descriptor)


def _wait_for_end(descriptor):
    import select

    ended, _, _ = select.select([descriptor], [], [], 300)
    assert ended


@pytest.mark.parametrize("gateways", ["1", "2"])
def test_a_second_server_on_the_port_fails_loudly(server, gateways):
    one = server("--gateways", gateways)
    address, _ = one.ready()
    other = server("--listen", address, "--gateways", gateways)
    assert other.process.wait(300) == 1
    assert other.log.read_text() == f"Error: --listen: {address} can't be had: Address already in use\n"
    assert serving(address)


def test_a_second_server_on_the_path_fails_loudly(server, tmp_path):
    address = f"unix:{tmp_path / 'socket'}"
    one = server("--listen", address)
    assert one.ready()[0] == address
    other = server("--listen", address)
    assert other.process.wait(300) == 1
    assert other.log.read_text() == f"Error: --listen: {address} can't be had: Address already in use\n"
    assert serving(address)


def test_the_path_of_a_dead_server_is_free(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
        with pytest.raises(ports.PortError, match="--listen: .* can't be had: Address already in use"):
            ports.Reservation(f"unix:{path}", "--listen", share=False)
    ports.Reservation(f"unix:{path}", "--listen", share=False).close()


def test_a_store_that_cannot_be_used_is_one_sentence(server, tmp_path):
    (tmp_path / "file").touch()
    one = server("--store", str(tmp_path / "file" / "store"))
    assert one.process.wait(300) == 1
    reason = f"the store's directory {tmp_path}/file/store can't be made: Not a directory"
    assert one.log.read_text() == f"Error: --store: {reason}\n"
    assert list(one.directory.iterdir()) == [one.log]


HOLD = """
from layerwire_server.supervisor.command import _runtime_directory as directory
with directory() as it: print(it, flush=True); input()
"""


@pytest.fixture
def holder(short_path):
    """Starts processes that hold runtime directories, all in one parent."""
    processes = []

    def start():
        one = subprocess.Popen(
            [sys.executable, "-c", HOLD],
            env={**os.environ, "TMPDIR": str(short_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(one)
        return one, Path(one.stdout.readline().strip())

    yield start
    for one in processes:
        one.kill()
        one.communicate()


def test_the_directory_of_a_killed_server_goes_with_the_next_start(holder, short_path):
    _, held = holder()
    killed, left = holder()
    killed.kill()
    killed.wait(300)
    other = short_path / "layerwire-data"  # somebody's, not a server's
    other.mkdir()
    assert left.is_dir()
    _, new = holder()
    assert {path for path in short_path.iterdir() if path.is_dir()} == {held, other, new}
