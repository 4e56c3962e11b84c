"""Many callers at once, of mixed operators and shapes, from threads, tasks and futures; and cancelling among them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import torch
import torch.nn.functional as F

import layerwire
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc, operators_pb2
from layerwire.wire import arrays
from tests.served import PATIENCE_SECONDS, Server

KINDS = 7


def work(lw: Any, seed: int, turn: int) -> tuple[Any, Any]:
    """A call and the answer it must have."""
    generator = torch.Generator().manual_seed(seed * 1000 + turn)
    n, c = 1 + seed % 3, 1 + turn % 4

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    image, weight, matrix = draw(n, c, 8 + seed % 4, 8), draw(5, c, 3, 3), draw(3, 8)
    calls = [
        lambda: (lw.relu(image), F.relu(image)),
        lambda: (lw.max_pool2d(image, 2), F.max_pool2d(image, 2)),
        lambda: (lw.conv2d(image, weight, padding=1), F.conv2d(image, weight, padding=1)),
        lambda: (lw.softmax(image, -1), F.softmax(image, -1)),
        lambda: (lw.linear(image, matrix), F.linear(image, matrix)),
        lambda: (lw.layer_norm(image, [8]), F.layer_norm(image, [8])),
        lambda: (lw.avg_pool2d(image, 3, stride=1, padding=1), F.avg_pool2d(image, 3, stride=1, padding=1)),
    ]
    return calls[(seed + turn) % KINDS]()


def check(got: Any, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_64_threads_of_mixed_operators_and_shapes(client: layerwire.Client) -> None:
    def caller(seed: int) -> int:
        for turn in range(12):
            check(*work(client, seed, turn))
        return 12

    with ThreadPoolExecutor(64) as threads:
        assert sum(threads.map(caller, range(64))) == 768


async def test_64_tasks_of_mixed_operators_and_shapes(served: Server) -> None:
    async with layerwire.AsyncClient(served.address, timeout=PATIENCE_SECONDS) as lw:

        async def caller(seed: int) -> None:
            for turn in range(12):
                awaitable, expected = work(lw, seed, turn)
                check(await awaitable, expected)

        await asyncio.gather(*(caller(seed) for seed in range(64)))


async def test_256_unary_callers_on_one_connection(served: Server) -> None:
    """More than a connection may have open at once: they wait for each other, none is refused."""
    request = pb.ActivateRequest(
        operator=operators_pb2.ActivateOperator(relu=operators_pb2.Relu()),
        input=arrays.from_numpy(np.ones(4, np.float32)),
    )
    async with grpc.aio.insecure_channel(served.address) as channel:
        stub = layerwire_pb2_grpc.LayerwireServiceStub(channel)

        async def caller() -> None:
            for _ in range(8):
                response = await stub.Activate(request, timeout=PATIENCE_SECONDS)
                assert response.output.data == request.input.data

        await asyncio.gather(*(caller() for _ in range(256)))


async def test_cancelled_tasks_leave_their_neighbours_alone(served: Server) -> None:
    async with layerwire.AsyncClient(served.address, timeout=PATIENCE_SECONDS) as lw:
        tasks = []
        for turn in range(200):
            awaitable, expected = work(lw, turn, turn)
            tasks.append((asyncio.ensure_future(awaitable), expected))
        await asyncio.sleep(0)
        for task, _ in tasks[::3]:
            task.cancel()
        for index, (task, expected) in enumerate(tasks):
            if index % 3:
                check(await task, expected)
        check(await lw.relu(torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0]))


def test_calls_in_flight_travel_together(client: layerwire.Client) -> None:
    """Timing tells how many calls shared the batch: of 300 in flight at once, most had company."""
    rows = [np.full((1, 10), value, np.float32) for value in range(300)]
    futures = [client.options(timing=True).submit.relu(row) for row in rows]
    timed = [future.result(PATIENCE_SECONDS) for future in futures]
    for row, answer in zip(rows, timed, strict=True):
        np.testing.assert_array_equal(answer.value, row)
    assert max(answer.timing.batch_calls for answer in timed) > 10
