"""Processes that die under load: no caller sees an error, every answer is right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import grpc
import numpy as np
import pytest

import layerwire
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc as pb_grpc
from layerwire.v1 import operators_pb2, program_pb2
from layerwire.wire.arrays import from_numpy
from tests.chaos.conftest import Load, Server
from tests.chaos.faulty_worker import FAIL, HANG, SEGFAULT, STICKY_ONCE

Start = Callable[..., Server]


def row(value: float) -> np.ndarray:
    return np.array([value, 1.0], np.float32)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_workers_cost_no_answer(start: Start, workers: int) -> None:
    server = start("--workers", str(workers), "--threads", "1")
    with layerwire.Client(server.address, timeout=60) as client:
        load = Load(client)
        for _ in range(4):
            load.after(100)
            for pid in server.pids("worker")[:1]:
                os.kill(pid, signal.SIGKILL)
        load.after(100)
        load.end()
    assert server.metric("layerwire_worker_restarts_total") == 4
    assert server.metric("layerwire_quarantined_requests_total") == 0


def test_killed_gateway_costs_no_answer(start: Start) -> None:
    server = start("--threads", "1")
    with layerwire.Client(server.address, timeout=60) as client:
        load = Load(client)
        for _ in range(3):
            load.after(100)
            for pid in server.pids("gateway"):
                os.kill(pid, signal.SIGKILL)
        load.after(100)
        load.end()
    assert server.metric("layerwire_gateway_restarts_total") == 3


def test_rolling_restart_costs_no_answer(start: Start) -> None:
    server = start("--threads", "1")
    with layerwire.Client(server.address, timeout=60) as client:
        load = Load(client)
        for _ in range(2):
            load.after(100)
            assert server.stop() == 0
            server.start()
        load.after(100)
        load.end()


@pytest.mark.parametrize("magic", [SEGFAULT, HANG], ids=["segfault", "hang"])
def test_call_that_kills_twice_is_quarantined_and_neighbours_are_answered(start: Start, magic: float) -> None:
    server = start("--threads", "1", "--hang-seconds", "1")
    with layerwire.Client(server.address, timeout=60, retries=0) as client:
        values = [float(i) for i in range(63)]
        values.insert(17, magic)
        futures = [client.submit.relu(row(value)) for value in values]
        for value, future in zip(values, futures, strict=True):
            if value == magic:
                with pytest.raises(layerwire.errors.InternalError):
                    future.result(60)
            else:
                np.testing.assert_array_equal(future.result(60), row(value))
    assert server.metric("layerwire_worker_restarts_total") == 2
    assert server.metric("layerwire_quarantined_requests_total") == 1


def test_call_that_killed_kills_no_more_when_it_comes_again(start: Start) -> None:
    server = start("--threads", "1")
    with layerwire.Client(server.address, timeout=60, retries=0) as client:
        for again in range(4):
            futures = [client.options(priority=again).submit.relu(row(value)) for value in (1.0, SEGFAULT, 3.0)]
            np.testing.assert_array_equal(futures[0].result(60), row(1.0))
            np.testing.assert_array_equal(futures[2].result(60), row(3.0))
            with pytest.raises(layerwire.errors.InternalError, match="workers died of this call twice"):
                futures[1].result(60)
        request = pb.ActivateRequest(
            operator=operators_pb2.ActivateOperator(relu=operators_pb2.Relu()), input=from_numpy(row(SEGFAULT))
        )
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError, match="sent before"):
            pb_grpc.LayerwireServiceStub(channel).Activate(request, timeout=60)
    assert server.metric("layerwire_worker_restarts_total") == 2
    assert server.metric("layerwire_quarantined_requests_total") == 1


def test_sticky_device_error_replaces_the_worker_and_loses_nothing(start: Start) -> None:
    server = start("--threads", "1")
    before = server.pids("worker")
    with layerwire.Client(server.address, timeout=60, retries=0) as client:
        values = [1.0, 2.0, STICKY_ONCE, 3.0]
        futures = [client.submit.relu(row(value)) for value in values]
        for value, future in zip(values, futures, strict=True):
            np.testing.assert_array_equal(future.result(60), row(value))
    assert server.pids("worker") != before
    assert server.metric("layerwire_worker_restarts_total") == 1


def test_failing_call_costs_only_itself_and_no_worker(start: Start) -> None:
    server = start("--threads", "1")
    before = server.pids("worker")
    with layerwire.Client(server.address, retries=0) as client:
        futures = [client.submit.relu(row(value)) for value in (1.0, FAIL, 3.0)]
        np.testing.assert_array_equal(futures[0].result(60), row(1.0))
        np.testing.assert_array_equal(futures[2].result(60), row(3.0))
        with pytest.raises(layerwire.errors.InternalError, match="error id [0-9a-f]{16}"):
            futures[1].result(60)
    assert server.pids("worker") == before


def test_weights_survive_their_workers(start: Start) -> None:
    server = start("--workers", "2", "--threads", "1")
    x, w = np.eye(3, dtype=np.float32), np.arange(12, dtype=np.float32).reshape(4, 3)
    with layerwire.Client(server.address, timeout=60) as lw:
        lw.put_weights("w", w)
        for _ in range(2):
            for pid in server.pids("worker"):
                os.kill(pid, signal.SIGKILL)
            for _ in range(20):
                np.testing.assert_array_equal(lw.linear(x, "w"), x @ w.T)


def test_outputs_over_a_message_end_no_worker(start: Start) -> None:
    server = start("--threads", "1")
    before = server.pids("worker")
    expand = program_pb2.TransformOperator(upsample=program_pb2.Upsample(size=[15, 1 << 18]))
    program = program_pb2.Program(
        inputs=[program_pb2.ProgramInput(name="x", dtype="DATA_TYPE_FLOAT32", shape=[1, 1, 1, 1])],
        nodes=[
            program_pb2.Node(name="big", inputs=[program_pb2.NodeInput(field="input", value="x")], transform=expand)
        ],
        outputs=[program_pb2.ProgramOutput(name=f"y{i}", value="big") for i in range(5)],
    )
    with layerwire.Client(server.address, timeout=60) as client:
        with pytest.raises(layerwire.errors.InvalidArgumentError, match="--max-output-bytes"):
            client.run(program, {"x": np.ones((1, 1, 1, 1), np.float32)})
        np.testing.assert_array_equal(client.relu(row(2.0)), row(2.0))
    assert server.pids("worker") == before
