"""Large tensors by gRPC: bit for bit what torch gives, in arrays of one's own, through deaths, in little memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import layerwire
from tests.served import PATIENCE_SECONDS, Server

MIB = 1024**2
PEAK_BYTES = 49 * MIB
# What a process may have beside three times the call's bytes: parts on their way, and what the C library keeps.
MARGIN_BYTES = 16 * MIB
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SIZES = {"odd": (3, 700_001), "parts and a byte": (1, 524288 + 1), "whole parts": (4, 524288)}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("large"))
    yield server
    server.close()


@pytest.fixture
def lw(server):
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS, shared_memory="off") as client:
        client.wait_ready()
        yield client


def values(shape, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    x[0, :5] = torch.tensor([float("nan"), -0.0, 0.0, float("inf"), float("-inf")], dtype=dtype)
    return x


def bits(tensor):
    return tensor.contiguous().view(torch.uint8)


@pytest.mark.parametrize("shape", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_bit_comes_back(lw, dtype, shape):
    x = values(shape, dtype)
    for _ in range(2):
        answer = lw.relu(x)
        assert torch.equal(bits(answer), bits(torch.relu(x)))
        answer += 1  # it may be written to
        assert answer.data_ptr() % answer.element_size() == 0


@pytest.mark.parametrize("shape", [(1, 5, 333, 517), (2, 3, 400, 600)], ids=["odd", "even"])
def test_several_outputs_are_arrays_of_their_own(lw, shape):
    x = np.random.default_rng(0).normal(size=shape)
    x[0, 0, 0, 0] = np.nan
    expected = torch.nn.functional.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    for _ in range(2):
        answers = lw.max_pool2d(x, 2, return_indices=True)
        for one, other in zip(answers, expected, strict=True):
            assert one.tobytes() == other.numpy().tobytes()
            assert one.flags.writeable
            assert one.flags.aligned
        answers[0][...] = 0
        assert answers[1].tobytes() == expected[1].numpy().tobytes()


def test_many_at_once_through_deaths(server, lw):
    x = np.random.default_rng(0).normal(size=(4, 100_000)).astype(np.float32)
    futures = []
    for number in range(24):
        futures.append((number, lw.submit.relu(x + np.float32(number))))
        if number in (5, 15):
            for pid in server.pids("worker"):
                os.kill(pid, signal.SIGKILL)
    for number, future in futures:
        assert np.array_equal(future.result(PATIENCE_SECONDS), np.maximum(x + np.float32(number), 0))


CALLER = f"""
import os, sys
from pathlib import Path
import numpy as np
import layerwire

pids = [int(pid) for pid in sys.argv[2:]] + [os.getpid()]

def kib(pid, key):
    return int(Path(f"/proc/{{pid}}/status").read_text().split(key + ":")[1].split()[0])

with layerwire.Client(sys.argv[1], timeout=300, shared_memory="off") as lw:
    x = np.random.default_rng(0).normal(size=(49, {PEAK_BYTES // 4 // 49})).astype(np.float32)
    expected = np.maximum(x, 0)
    lw.relu(x[:, :10])
    idle = [kib(pid, "VmRSS") for pid in pids]
    for pid in pids:
        Path(f"/proc/{{pid}}/clear_refs").write_text("5")  # the peak is now what is there now
    for _ in range(3):
        assert np.array_equal(lw.relu(x), expected)
    print(*((kib(pid, "VmHWM") - before) * 1024 for pid, before in zip(pids, idle, strict=True)))
"""


@pytest.fixture
def fresh_server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.close()


def test_peak_memory_of_a_call_is_three_times_its_bytes(fresh_server):
    server = fresh_server  # which keeps no memory of earlier calls
    roles = ("gateway", "worker")
    pids = [server.pids(role)[0] for role in roles]
    if not os.access(f"/proc/{pids[0]}/clear_refs", os.W_OK):
        pytest.skip("peaks can't be reset here")
    command = [sys.executable, "-c", CALLER, server.address, *map(str, pids)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert result.returncode == 0, result.stderr
    peaks = dict(zip((*roles, "client"), map(int, result.stdout.split()), strict=True))
    # Each has the call's bytes at least once, or this measures nothing.
    assert {role: peak for role, peak in peaks.items() if not PEAK_BYTES < peak < 3 * PEAK_BYTES + MARGIN_BYTES} == {}
