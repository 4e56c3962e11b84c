"""A network called layer by layer beside the same network as a program: what a client without programs would do.

It calls through the SDK as an application does, since the load tester has no calls that wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import torch

import layerwire
from tools.benchmarks import networks
from tools.benchmarks.tables import table

Call = Callable[[], Awaitable[Any]]


@contextlib.asynccontextmanager
async def program(address: str) -> AsyncIterator[Call]:
    """LeNet deployed, and run."""
    with layerwire.Client(address) as client:
        client.deploy("lenet", networks.lenet(), torch.cat([networks.IMAGE] * 2))
    image = networks.IMAGE.numpy()
    async with layerwire.AsyncClient(address) as lw:
        yield lambda: lw.run("lenet", {"x": image})


@contextlib.asynccontextmanager
async def layers(address: str) -> AsyncIterator[Call]:
    """LeNet's layers one after another, with named weights."""
    image = networks.IMAGE.numpy()
    async with layerwire.AsyncClient(address) as lw:
        for name, weight in networks.lenet().state_dict().items():
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


async def rate(call: Call, callers: int, seconds: float) -> float:
    """Calls per second of `callers` that each wait for their answer."""
    ncalls = 0
    end = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal ncalls
        while time.perf_counter() < end:
            await call()
            ncalls += 1

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return ncalls / (time.perf_counter() - start)


def report(address: str, callers: int, rounds: int, seconds: float) -> str:
    """The table, of rounds in turn."""
    ways = {"layer by layer": layers, "as a program": program}
    rates: dict[str, list[float]] = {name: [] for name in ways}

    async def turn(way: Any) -> float:
        async with way(address) as call:
            await rate(call, callers, 0.3)
            return await rate(call, callers, seconds)

    for _ in range(rounds):
        for name, way in ways.items():
            rates[name].append(asyncio.run(turn(way)))
    first = statistics.median(rates["layer by layer"])
    rows = [
        (name, f"{statistics.median(values):,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}",
         f"{statistics.median(values) / first:.2f}")
        for name, values in rates.items()
    ]  # fmt: skip
    heads = (f"LeNet by the SDK, {callers} callers", "networks/s, median", "least", "most", "ratio")
    return table(heads, rows) + "\n\nHeld against: a program at least 4 times layer by layer."
