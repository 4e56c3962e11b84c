"""The sides that are compared: a server each, and a way to call it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import numpy as np
import torch

import layerwire
from layerwire import codec
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc, operators_pb2
from tests.benchmarks import bare

Call = Callable[[], Awaitable[Any]]
RELU = np.linspace(-1, 1, 10, dtype=np.float32).reshape(1, 10)
ROW = np.linspace(-1, 1, 512, dtype=np.float32).reshape(1, 512)


@contextlib.contextmanager
def server(*command: str) -> Iterator[str]:
    """A server's address, while it runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        found = re.search(r"ready on ([\d.]+:\d+)", ready)
        if found is None:
            raise RuntimeError(f"{' '.join(command)} did not start: {ready!r}")
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)


BARE = ("tests.benchmarks.bare",)
LAYERWIRE = ("layerwire.cli", "serve", "--device", "cpu", "--listen", "127.0.0.1:0", "--metrics", "off")


@contextlib.asynccontextmanager
async def unary(address: str, operator: str) -> AsyncIterator[Call]:
    """A bare unary grpc.aio client that makes and parses the messages."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = layerwire_pb2_grpc.LayerwireServiceStub(channel)

        async def relu() -> Any:
            request = pb.ActivateRequest(
                operator=operators_pb2.ActivateOperator(relu=operators_pb2.Relu()), input=codec.from_numpy(RELU)
            )
            return codec.to_numpy((await stub.Activate(request)).output)

        async def linear() -> Any:
            request = pb.LinearRequest(
                operator=operators_pb2.LinearOperator(linear=operators_pb2.Linear()), input=codec.from_numpy(ROW)
            )
            request.weight.name, request.bias.name = "w", "b"
            return codec.to_numpy((await stub.Linear(request)).output)

        async def network() -> Any:
            request = pb.RunRequest(name="lenet", inputs={"x": codec.from_numpy(bare.IMAGE.numpy())})
            return codec.to_numpy((await stub.Run(request)).outputs["output"])

        yield {"relu": relu, "linear": linear, "network": network}[operator]


@contextlib.asynccontextmanager
async def stream(address: str, operator: str) -> AsyncIterator[Call]:
    """The SDK."""
    async with layerwire.AsyncClient(address) as lw:
        if operator == "linear":
            await lw.put_weights("w", bare.WEIGHT.numpy())
            await lw.put_weights("b", bare.BIAS.numpy())
        calls: dict[str, Call] = {"relu": lambda: lw.relu(RELU), "linear": lambda: lw.linear(ROW, "w", "b")}
        yield calls[operator]


@contextlib.asynccontextmanager
async def program(address: str, operator: str) -> AsyncIterator[Call]:  # there is one
    """The SDK, running a network that was deployed."""
    with layerwire.Client(address) as client:
        client.deploy("lenet", bare.network(), torch.cat([bare.IMAGE] * 2))
    image = bare.IMAGE.numpy()
    async with layerwire.AsyncClient(address) as lw:
        yield lambda: lw.run("lenet", {"x": image})


@contextlib.asynccontextmanager
async def layers(address: str, operator: str) -> AsyncIterator[Call]:  # there is one
    """The SDK, calling the same network layer by layer, with named weights."""
    image = bare.IMAGE.numpy()
    async with layerwire.AsyncClient(address) as lw:
        for name, weight in bare.network().state_dict().items():
            await lw.put_weights(f"layers/{name}", weight.numpy())

        async def call() -> Any:
            x = image
            for name in ("conv1", "conv2"):
                x = await lw.conv2d(x, f"layers/{name}.weight", f"layers/{name}.bias")
                x = await lw.max_pool2d(await lw.relu(x), 2)
            x = x.reshape(len(x), -1)
            for name in ("fc1", "fc2"):
                x = await lw.relu(await lw.linear(x, f"layers/{name}.weight", f"layers/{name}.bias"))
            return await lw.linear(x, "layers/fc3.weight", "layers/fc3.bias")

        yield call


@contextlib.asynccontextmanager
async def deterministic(address: str, operator: str) -> AsyncIterator[Call]:
    """The SDK, asking for answers that don't depend on company."""
    async with layerwire.AsyncClient(address) as client, stream(address, operator):
        lw = client.options(deterministic=True)
        calls: dict[str, Call] = {"relu": lambda: lw.relu(RELU), "linear": lambda: lw.linear(ROW, "w", "b")}
        yield calls[operator]


async def rate(call: Call, callers: int, seconds: float) -> tuple[float, list[float]]:
    """Calls per second of `callers` that each wait for their answer, and latencies in seconds."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (start := time.perf_counter()) < end:
            await call()
            latencies.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(latencies) / (time.perf_counter() - start), latencies
