"""Memory that client and server share: the same answers as without, no copy too many, and no harm from bad clients."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import pytest

import layerwire
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire.framing import shared_call
from layerwire.wire.shared_memory import PAGE_BYTES, Memory
from tests.served import PATIENCE_SECONDS, Server

SHAPE = (2, 16, 112, 112)  # 1.6 MB of float32
X = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
X[0, 0, 0, :4] = np.nan, -0.0, np.inf, -np.inf
WEIGHT = np.random.default_rng(1).normal(size=(300, 300)).astype(np.float32)
CALLS = {
    "relu": lambda lw: lw.relu(X),
    "float64": lambda lw: lw.sigmoid(X.astype(np.float64)),
    "not row-major": lambda lw: lw.relu(X.T),
    "indices": lambda lw: lw.max_pool2d(X, 2, return_indices=True),
    "unpool": lambda lw: lw.max_unpool2d(*lw.max_pool2d(np.nan_to_num(X), 2, return_indices=True), 2),
    "weights along": lambda lw: lw.linear(X.reshape(-1, 112)[:3000, :100].repeat(3, 1), WEIGHT, WEIGHT[0]),
    "small": lambda lw: lw.relu(X[:1, :1, :5]),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("shared"), "--shared-memory", "600MiB")
    yield server
    server.close()


@pytest.fixture
def lw(server):
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as client:
        client.wait_ready()
        yield client


def memory_of(client):
    return client._session.engine().memory


@pytest.mark.parametrize("name", CALLS)
def test_answers_are_those_that_come_by_grpc(server, lw, name):
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS, shared_memory="off") as plain:
        expected = CALLS[name](plain)
        assert memory_of(plain) is None
    lw.empty(SHAPE)
    assert memory_of(lw) is not None
    for _ in range(3):  # the first answer tells how much room the next one takes
        answer = CALLS[name](lw)
        for one, other in zip(np.atleast_1d(answer), np.atleast_1d(expected), strict=True):
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes()
            one[...] = 0  # it may be written to


def test_torch_tensors_go_and_come_by_it_too(lw):
    torch = pytest.importorskip("torch")
    lw.empty(SHAPE)
    x = torch.from_numpy(X)
    for _ in range(3):
        assert torch.equal(lw.relu(x).nan_to_num(), torch.relu(x).nan_to_num())


def copies(server):
    """Bytes copied so far, by what for."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics", timeout=PATIENCE_SECONDS) as page:
        samples = re.findall(
            r'^layerwire_copied_bytes_total\{place="(\w+)"\} (\S+)', page.read().decode(), re.MULTILINE
        )
    return {place: float(value) for place, value in samples}


def copies_of_calls(server, call, count):
    """What so many calls cost: bytes copied a byte of X, by what for; children tell of them every now and then."""
    before = copies(server)
    for _ in range(count):
        call()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        after = copies(server)
        ratios = {place: (value - before.get(place, 0.0)) / X.nbytes / count for place, value in after.items()}
        if max(ratios.values()) > 0.99 or time.monotonic() > deadline:
            return ratios
        time.sleep(0.05)


def test_no_copy_too_many(server, lw):
    array = lw.empty(SHAPE)
    array[...] = X
    lw.relu(array)
    ratios = copies_of_calls(server, lambda: lw.relu(array), 5)
    assert ratios.pop("to_client") == pytest.approx(1.0)
    assert max(ratios.values()) == 0.0
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS, shared_memory="off") as plain:
        for _ in range(2):
            plain.relu(X)
        ratios = copies_of_calls(server, lambda: plain.relu(X), 5)
    # Beside these the SDK's process copies three times before it sends, and three times what it gets.
    assert ratios["to_worker"] <= 1.01
    assert ratios["from_worker"] + ratios["to_message"] <= 2.02
    # A message's last part may be too small to count.
    assert 2.9 <= ratios["from_grpc"] + ratios["to_worker"] <= 3.01
    assert 2.9 <= ratios["from_worker"] + ratios["to_message"] + ratios["to_grpc"] <= 3.01


def test_what_is_lent_is_released(lw):
    array = lw.empty(SHAPE)
    array[...] = X
    memory = memory_of(lw)
    answers = [lw.relu(array) for _ in range(4)]
    assert len(memory._ranges) in (4, 5)  # the array, and all answers but, where none came before, the first
    del answers, array
    memory.lend(1)  # takes in what was released
    assert len(memory._ranges) <= 1


def test_arrays_outlive_the_client(server):
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as client:
        array = client.empty(SHAPE)
        array[...] = X
        client.relu(array)
        answer = client.relu(array)
    assert array.tobytes() == X.tobytes()
    assert np.array_equal(answer, np.maximum(X, 0), equal_nan=True)
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as client:
        client.empty(SHAPE)
        assert np.array_equal(client.relu(array), answer, equal_nan=True)  # from another's memory


def test_a_full_memory_only_costs_copies(lw):
    lw.empty(SHAPE)
    held = [lw.empty(60 * 2**18) for _ in range(5)]  # 60 MiB each, of 256
    assert np.array_equal(lw.relu(X), np.maximum(X, 0), equal_nan=True)
    assert len(held) == 5


def test_many_at_once(lw):
    lw.empty(SHAPE)
    inputs = [X + np.float32(number) for number in range(40)]
    futures = [lw.submit.relu(one) for one in inputs]
    for one, future in zip(inputs, futures, strict=True):
        assert np.array_equal(future.result(PATIENCE_SECONDS), np.maximum(one, 0), equal_nan=True)


def test_workers_that_die_lose_nothing(server, lw):
    lw.empty(SHAPE)
    futures = []
    for number in range(30):
        futures.append((number, lw.submit.relu(X + np.float32(number))))
        if number in (5, 20):
            for pid in server.pids("worker"):
                os.kill(pid, signal.SIGKILL)
    for number, future in futures:
        answer = future.result(PATIENCE_SECONDS)
        assert np.array_equal(answer, np.maximum(X + np.float32(number), 0), equal_nan=True)


def test_memory_ends_with_its_stream(server):
    (gateway,) = server.pids("gateway")

    def memories():
        inodes = set()
        for path in Path(f"/proc/{gateway}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if "layerwire-client" in str(path.readlink()):
                    inodes.add(path.stat().st_ino)
        return len(inodes)

    before = memories()
    for _ in range(4):  # more than there is room for at once
        with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as client:
            client.empty(SHAPE)
            assert memory_of(client) is not None
            assert memories() == before + 1
        deadline = time.monotonic() + PATIENCE_SECONDS
        while memories() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert memories() == before


def test_beyond_the_bound_clients_go_without(server):
    clients = [layerwire.Client(server.address, timeout=PATIENCE_SECONDS) for _ in range(4)]
    try:
        for client in clients:
            client.empty(SHAPE)
            assert np.array_equal(client.relu(X), np.maximum(X, 0), equal_nan=True)
        assert [memory_of(client) is not None for client in clients] == [True, True, True, False]  # 256, 256, 88 MiB
    finally:
        for client in clients:
            client.close()


RELU = pb.Call(
    activate=pb.ActivateRequest(operator={"relu": {}}, input={"dtype": 1, "shape": [1000]})
).SerializeToString()


@pytest.fixture
def stream(server):
    """Sends messages on a stream of its own and gives the answers: `ask(message)`, and the memory that it has."""
    with grpc.insecure_channel(server.address) as channel:
        waiting = queue.Queue()
        method = channel.stream_stream("/layerwire.v1.LayerwireService/Stream")
        answers = method(iter(waiting.get, None), timeout=PATIENCE_SECONDS)

        def ask(message):
            waiting.put(message)
            return pb.StreamResponse.FromString(next(answers))

        name = ask(pb.StreamRequest(share_memory=pb.ShareMemoryRequest()).SerializeToString()).memory.name
        yield ask, name, Memory.open(name, "layerwire-client")
        waiting.put(None)


def code_of(response):
    (group,) = response.groups
    answer = pb.Answer.FromString(group.template)
    return answer.status.code if answer.HasField("status") else 0


def test_a_call_by_hand(stream):
    ask, name, memory = stream
    memory.write(PAGE_BYTES, [np.full(1000, -1.5, np.float32).tobytes()])
    shared = pb.SharedData(memory=name, ranges=[{"start": PAGE_BYTES, "nbytes": 4000}])
    assert np.frombuffer(ask(shared_call(RELU, 1, shared)).groups[0].data[0], np.float32).tolist() == [0.0] * 1000
    shared.room.start, shared.room.nbytes = 4 * PAGE_BYTES, 4032
    memory.write(4 * PAGE_BYTES, [b"\xff" * 4032])
    response = ask(shared_call(RELU, 2, shared))
    assert [(place.start, place.nbytes) for place in response.groups[0].shared_ranges] == [(4 * PAGE_BYTES, 4000)]
    assert bytes(memory.view(4 * PAGE_BYTES, 4001)) == bytes(4000) + b"\xff"
    shared.room.nbytes = 4000 - 64  # too little: it comes in the message
    assert len(ask(shared_call(RELU, 3, shared)).groups[0].data[0]) == 4000


@pytest.mark.parametrize("where", ["ranges", "room"])
@pytest.mark.parametrize(
    ("start", "nbytes"), [(0, 4000), (2**40, 4000), (2**64 - 4000, 4000), (PAGE_BYTES, 2**63), (2**63, 2**63)]
)
def test_ranges_outside_are_the_calls_own_error(server, stream, where, start, nbytes):
    ask, name, _ = stream
    shared = pb.SharedData(memory=name, ranges=[{"start": PAGE_BYTES, "nbytes": 4000}])
    place = shared.ranges[0] if where == "ranges" else shared.room
    place.start, place.nbytes = start, nbytes
    before = server.pids("worker")
    assert code_of(ask(shared_call(RELU, 1, shared))) == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert server.pids("worker") == before


def test_no_memory_can_be_guessed(stream):
    ask, name, _ = stream
    process, descriptor, mark = struct.unpack("<QQ16s", name)
    others = [
        b"",
        b"x" * 5000,
        struct.pack("<QQ16s", process, descriptor, bytes(16)),
        *(struct.pack("<QQ16s", process, other, mark) for other in range(12)),
        struct.pack("<QQ16s", os.getpid(), 0, mark),
    ]
    for number, other in enumerate(others):
        if other == name:
            continue
        shared = pb.SharedData(memory=other, ranges=[{"start": PAGE_BYTES, "nbytes": 4000}])
        assert code_of(ask(shared_call(RELU, number, shared))) == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_data_of_another_length_are_the_calls_own_error(stream):
    ask, name, _ = stream
    for ranges in ([], [(PAGE_BYTES, 3999)], [(PAGE_BYTES, 4000), (PAGE_BYTES, 4000)]):
        shared = pb.SharedData(memory=name, ranges=[{"start": start, "nbytes": size} for start, size in ranges])
        assert code_of(ask(shared_call(RELU, 1, shared))) == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_a_cancelled_call_has_of_the_memory_is_its_own_until_its_answer(server, lw):
    array = lw.empty(SHAPE)
    array[...] = X
    lw.relu(array)
    memory, (connection,) = memory_of(lw), lw._session.engine().connections
    (worker,) = server.pids("worker")
    os.kill(worker, signal.SIGSTOP)
    try:
        future = lw.submit.relu(array)
        wait_until(lambda: connection.loans)
        room = next(iter(connection.loans.values())).shared.room.start
        assert future.cancel()
        wait_until(lambda: not connection.sent_calls and not connection._cancelled_ids)  # the server has been told
        del array  # what the worker has yet to read
        held = sorted(memory._ranges._ends)
        others = [lw.empty(SHAPE) for _ in range(3)]
        assert len(held) == 2
        assert room in held
        assert not {memory._start_of(one.data.cast("B")) for one in others} & set(held)
        assert connection.loans
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: not connection.loans)
    memory.lend(1)  # takes in what was released
    assert len(memory._ranges) <= 4
    assert memory._start_of(memory.lend(1)) == held[0]  # both are free again
    assert np.array_equal(lw.relu(X), np.maximum(X, 0), equal_nan=True)
    assert len(others) == 3


def test_two_clients_share_memory_with_one_server_at_once(server):
    with (
        layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as one,
        layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as other,
    ):
        arrays = [client.empty(SHAPE) for client in (one, other)]
        assert memory_of(one)._name != memory_of(other)._name
        for number, array in enumerate(arrays):
            array[...] = X + np.float32(number)
        for _ in range(5):
            futures = [client.submit.relu(array) for client, array in zip((one, other), arrays, strict=True)]
            for number, future in enumerate(futures):
                expected = np.maximum(X + np.float32(number), 0)
                assert np.array_equal(future.result(PATIENCE_SECONDS), expected, equal_nan=True)
        assert np.array_equal(one.relu(arrays[1]), np.maximum(X + np.float32(1), 0), equal_nan=True)  # another's


def test_a_client_that_is_killed_in_the_middle_harms_no_other(server, lw):
    script = f"""
import os, signal, numpy as np, layerwire
client = layerwire.Client({server.address!r}, timeout=300)
array = client.empty({SHAPE})
array[...] = 1
client.relu(array)
futures = [client.submit.relu(array) for _ in range(20)]
futures[0].result()
os.kill(os.getpid(), signal.SIGKILL)
"""
    array = lw.empty(SHAPE)
    array[...] = X
    workers, memories = server.pids("worker"), lw._session.engine().memory
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script])
        while process.poll() is None:
            assert np.array_equal(lw.relu(array), np.maximum(X, 0), equal_nan=True)
        assert process.returncode == -signal.SIGKILL
    assert server.pids("worker") == workers
    assert memory_of(lw) is memories


@pytest.mark.parametrize("shape", [(0,), (0, 1 << 20), (3, 0, 5)])
def test_arrays_without_elements_go_their_way(lw, shape):
    lw.empty(SHAPE)
    assert lw.relu(lw.empty(shape)).shape == shape


def test_arrays_of_any_strides_are_read_as_they_are(lw):
    whole = lw.empty((2, 900, 1100))
    whole[...] = np.random.default_rng(2).normal(size=whole.shape)
    for one in (whole[::-1], whole[:, ::2, ::3], whole.T, whole[:, :, 7:], np.broadcast_to(whole[0], (3, 900, 1100))):
        for _ in range(2):
            assert np.array_equal(lw.relu(one), np.maximum(one, 0))


def test_each_of_several_servers_shares_its_own(server, tmp_path):
    other = Server(tmp_path)
    try:
        with layerwire.Client([server.address, other.address], timeout=PATIENCE_SECONDS) as client:
            client.wait_ready()
            connections = client._session.engine().connections
            for number in range(12):  # in turn
                answer = client.relu(X + np.float32(number))
                assert np.array_equal(answer, np.maximum(X + np.float32(number), 0), equal_nan=True)
            first, second = (connection.memory for connection in connections)
            assert first._name != second._name
            answers = [client.relu(X) for _ in range(4)]
            counts = [
                sum(one._start_of(answer.data.cast("B")) is not None for answer in answers) for one in (first, second)
            ]
            assert counts == [2, 2]
    finally:
        other.close()
