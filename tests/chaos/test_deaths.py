"""Processes that die under load: no caller sees an error, every answer is right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

import layerwire
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc as pb_grpc
from layerwire.v1 import operators_pb2, program_pb2
from layerwire.wire.arrays import from_numpy
from tests.chaos.conftest import FaultyServer, Load
from tests.chaos.faulty_worker import FAIL, HANG, SEGFAULT, STICKY_ONCE
from tests.served import PATIENCE_SECONDS, Server

Start = Callable[..., Server]


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one worker; tests leave it with a worker that is well, and count what they add to its metrics."""
    server = FaultyServer(tmp_path_factory.mktemp("lone"), "--threads", "1")
    yield server
    server.close()


@contextmanager
def metric_changes(server: Server, **changes: int) -> Iterator[None]:
    """Asserts by how much metrics change within: `restarts`, `quarantined`, `gateway_restarts`."""
    names = {
        "restarts": "layerwire_worker_restarts_total",
        "quarantined": "layerwire_quarantined_requests_total",
        "gateway_restarts": "layerwire_gateway_restarts_total",
    }
    before = {name: server.metric(names[name]) for name in changes}
    yield
    assert {name: server.metric(names[name]) - before[name] for name in changes} == changes


def row(value: float) -> np.ndarray:
    return np.array([value, 1.0], np.float32)


def kill_workers_under_load(server: Server) -> None:
    with (
        metric_changes(server, restarts=4, quarantined=0),
        layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as lw,
    ):
        load = Load(lw)
        for _ in range(4):
            load.after(100)
            for pid in server.pids("worker")[:1]:
                os.kill(pid, signal.SIGKILL)
        load.after(100)
        load.end()


def test_killed_workers_cost_no_answer(lone: Server) -> None:
    kill_workers_under_load(lone)


def test_one_of_two_workers_killed_costs_no_answer(start: Start) -> None:
    kill_workers_under_load(start("--workers", "2", "--threads", "1"))


def test_killed_gateway_costs_no_answer(lone: Server) -> None:
    with metric_changes(lone, gateway_restarts=3), layerwire.Client(lone.address, timeout=PATIENCE_SECONDS) as client:
        load = Load(client)
        for _ in range(3):
            load.after(100)
            for pid in lone.pids("gateway"):
                os.kill(pid, signal.SIGKILL)
        load.after(100)
        load.end()


def test_rolling_restart_costs_no_answer(start: Start) -> None:
    server = start("--threads", "1", "--lame-duck-seconds", "0.1")
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as client:
        load = Load(client)
        for _ in range(2):
            load.after(100)
            assert server.stop() == 0
            server.start()
        load.after(100)
        load.end()


def quarantine_one_of_many(server: Server, magic: float, deaths: int) -> None:
    with (
        metric_changes(server, restarts=deaths, quarantined=1),
        layerwire.Client(server.address, timeout=PATIENCE_SECONDS, retries=0) as client,
    ):
        values = [float(i) for i in range(63)]
        values.insert(17, magic)
        futures = [client.submit.relu(row(value)) for value in values]
        for value, future in zip(values, futures, strict=True):
            if value == magic:
                with pytest.raises(layerwire.errors.InternalError):
                    future.result(PATIENCE_SECONDS)
            else:
                np.testing.assert_array_equal(future.result(PATIENCE_SECONDS), row(value))


def test_call_that_kills_twice_is_quarantined_and_neighbours_are_answered(lone: Server) -> None:
    quarantine_one_of_many(lone, SEGFAULT, deaths=2)


def test_call_that_hangs_is_tried_a_third_time_and_quarantined_and_neighbours_are_answered(start: Start) -> None:
    quarantine_one_of_many(start("--threads", "1", "--hang-seconds", "3"), HANG, deaths=3)


def test_call_that_killed_kills_no_more_when_it_comes_again(lone: Server) -> None:
    deadly = np.array([SEGFAULT, 2.0], np.float32)  # no other test's
    with (
        metric_changes(lone, restarts=2, quarantined=1),
        layerwire.Client(lone.address, timeout=PATIENCE_SECONDS, retries=0) as client,
    ):
        for again in range(4):
            rows = (row(1.0), deadly, row(3.0))
            futures = [client.options(priority=again).submit.relu(values) for values in rows]
            np.testing.assert_array_equal(futures[0].result(PATIENCE_SECONDS), row(1.0))
            np.testing.assert_array_equal(futures[2].result(PATIENCE_SECONDS), row(3.0))
            with pytest.raises(layerwire.errors.InternalError, match="workers died of this call twice"):
                futures[1].result(PATIENCE_SECONDS)
        request = pb.ActivateRequest(
            operator=operators_pb2.ActivateOperator(relu=operators_pb2.Relu()), input=from_numpy(deadly)
        )
        with grpc.insecure_channel(lone.address) as channel, pytest.raises(grpc.RpcError, match="sent before"):
            pb_grpc.LayerwireServiceStub(channel).Activate(request, timeout=PATIENCE_SECONDS)


def test_sticky_device_error_replaces_the_worker_and_loses_nothing(lone: Server) -> None:
    before = lone.pids("worker")
    with (
        metric_changes(lone, restarts=1),
        layerwire.Client(lone.address, timeout=PATIENCE_SECONDS, retries=0) as client,
    ):
        values = [1.0, 2.0, STICKY_ONCE, 3.0]
        futures = [client.submit.relu(row(value)) for value in values]
        for value, future in zip(values, futures, strict=True):
            np.testing.assert_array_equal(future.result(PATIENCE_SECONDS), row(value))
        assert lone.pids("worker") != before


def test_failing_call_costs_only_itself_and_no_worker(lone: Server) -> None:
    before = lone.pids("worker")
    with layerwire.Client(lone.address, timeout=PATIENCE_SECONDS, retries=0) as client:
        futures = [client.submit.relu(row(value)) for value in (1.0, FAIL, 3.0)]
        np.testing.assert_array_equal(futures[0].result(PATIENCE_SECONDS), row(1.0))
        np.testing.assert_array_equal(futures[2].result(PATIENCE_SECONDS), row(3.0))
        with pytest.raises(layerwire.errors.InternalError, match="error id [0-9a-f]{16}"):
            futures[1].result(PATIENCE_SECONDS)
    assert lone.pids("worker") == before


def test_weights_survive_their_workers(start: Start) -> None:
    server = start("--workers", "2", "--threads", "1")
    x, w = np.eye(3, dtype=np.float32), np.arange(12, dtype=np.float32).reshape(4, 3)
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as lw:
        lw.put_weights("w", w)
        for _ in range(2):
            for pid in server.pids("worker"):
                os.kill(pid, signal.SIGKILL)
            for _ in range(20):
                np.testing.assert_array_equal(lw.linear(x, "w"), x @ w.T)


def test_outputs_over_a_message_end_no_worker(lone: Server) -> None:
    before = lone.pids("worker")
    expand = program_pb2.TransformOperator(upsample=program_pb2.Upsample(size=[15, 1 << 18]))
    program = program_pb2.Program(
        inputs=[program_pb2.ProgramInput(name="x", dtype="DATA_TYPE_FLOAT32", shape=[1, 1, 1, 1])],
        nodes=[
            program_pb2.Node(name="big", inputs=[program_pb2.NodeInput(field="input", value="x")], transform=expand)
        ],
        outputs=[program_pb2.ProgramOutput(name=f"y{i}", value="big") for i in range(5)],
    )
    with layerwire.Client(lone.address, timeout=PATIENCE_SECONDS) as client:
        with pytest.raises(layerwire.errors.InvalidArgumentError, match="--max-output-bytes"):
            client.run(program, {"x": np.ones((1, 1, 1, 1), np.float32)})
        np.testing.assert_array_equal(client.relu(row(2.0)), row(2.0))
    assert lone.pids("worker") == before
