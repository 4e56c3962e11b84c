"""Where memory can't be shared, calls go on without it, with the same answers, and the server's log says so once."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import layerwire
from tests.served import PATIENCE_SECONDS, Server

X = np.random.default_rng(0).normal(size=(16, 100_000)).astype(np.float32)
EXPECTED = np.maximum(X, 0)
IN_VAIN = "no memory can be shared with clients"
CANNOT_READ = "memory of a client can't be read"

CALLER = """
import os, resource, sys
from pathlib import Path
import numpy as np
import layerwire

x = np.random.default_rng(0).normal(size=(16, 100_000)).astype(np.float32)
with layerwire.Client(sys.argv[1], timeout=300) as lw:
    lw.relu(x[:, :10])  # all that takes descriptors and memory but sharing
    limit = sys.argv[2]
    if limit == "RLIMIT_NOFILE":
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    elif limit == "RLIMIT_AS":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**27,) * 2)
    elif limit == "another user":
        os.setgid(65534), os.setuid(65534)
    lw.empty(x.shape)
    for _ in range(3):
        assert np.array_equal(lw.relu(x), np.maximum(x, 0))
    print(lw._session.engine().memory is not None)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("faults"))
    yield server
    server.close()


@pytest.fixture
def fresh_server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.close()


def unshare():
    """A command that runs another in namespaces of its own."""
    command = [shutil.which("unshare") or "unshare", "--pid", "--mount", "--fork", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no namespaces here")
    return command


def shares(server, command=(), limit=""):
    """Whether a client of another process shares memory with the server; its answers are right."""
    result = subprocess.run(
        [*command, sys.executable, "-c", CALLER, server.address, limit],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip() == "True"


def test_a_client_that_may_do_all_shares(server):
    assert shares(server)


def test_a_client_in_namespaces_of_its_own_goes_without(server):
    assert not shares(server, unshare())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another")
def test_another_users_client_goes_without(server):
    assert not shares(server, limit="another user")


@pytest.mark.parametrize("limit", ["RLIMIT_NOFILE", "RLIMIT_AS"])
def test_a_client_at_its_limits_goes_without(server, limit):
    assert not shares(server, limit=limit)


def limit_of_descriptors(pid):
    """Lets a process open no more files."""
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


def limit_of_files(pid):
    """Lets a process make no large files, be they in memory; a server's log stays within it."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (2**20, 2**20))


def limit_of_memory(pid):
    """Lets a process map little more than it has."""
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + 2**26, size + 2**26))


@pytest.mark.parametrize("limit", [limit_of_descriptors, limit_of_files, limit_of_memory])
def test_a_gateway_at_its_limits_shares_nothing(fresh_server, limit):
    server = fresh_server
    (gateway,) = server.pids("gateway")
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as lw:
        lw.relu(X[:, :10])
        limit(gateway)
        lw.empty(X.shape)
        for _ in range(3):
            assert np.array_equal(lw.relu(X), EXPECTED)
        assert lw._session.engine().memory is None
    if limit is not limit_of_descriptors:  # else it takes no connection
        with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as lw:
            lw.empty(X.shape)
            assert np.array_equal(lw.relu(X), EXPECTED)
    lines = server.log.read_text().splitlines()
    assert sum(IN_VAIN in line for line in lines) == 1, lines


@pytest.mark.parametrize("limit", [limit_of_descriptors, limit_of_memory])
def test_what_a_worker_cannot_read_comes_by_grpc(fresh_server, limit):
    server = fresh_server
    (worker,) = server.pids("worker")
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as lw:
        lw.relu(X[:, :10])
        limit(worker)
        lw.empty(X.shape)
        futures = [lw.submit.relu(X) for _ in range(4)]
        assert all(np.array_equal(future.result(PATIENCE_SECONDS), EXPECTED) for future in futures)
        assert lw._session.engine().memory is None
        assert np.array_equal(lw.relu(X), EXPECTED)
    assert server.pids("worker") == [worker]
    lines = server.log.read_text().splitlines()
    assert sum(CANNOT_READ in line for line in lines) == 1, lines
