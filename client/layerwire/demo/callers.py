"""Many callers at once, each taking the next image through the network, by layers or as a whole, with a stopwatch.

It knows the SDK's client; nothing of what the layers compute.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from layerwire.demo import digits


@dataclass
class Measurement:
    """What calls took, as their callers saw it.

    Attributes:
        latencies_seconds: of each call.
        batches: how many batches the calls fill: a call that shared its batch with k - 1 others counts for 1/k.
    """

    latencies_seconds: list[float] = field(default_factory=list)
    batches: float = 0.0

    def quantile_seconds(self, part: float) -> float:
        """The latency that this part of the calls keeps below."""
        latencies = sorted(self.latencies_seconds)
        return latencies[min(int(part * len(latencies)), len(latencies) - 1)]


class Stopwatch:
    """An asynchronous client whose every operator call is measured."""

    def __init__(self, client: Any) -> None:
        self._calls = client.options(timing=True)
        self.measurement = Measurement()

    def __getattr__(self, function: str) -> Callable[..., Awaitable[torch.Tensor]]:
        method = getattr(self._calls, function)

        async def call(*args: Any, **kwargs: Any) -> torch.Tensor:
            start = time.perf_counter()
            value: torch.Tensor
            value, timing = await method(*args, **kwargs)
            self.measurement.latencies_seconds.append(time.perf_counter() - start)
            self.measurement.batches += 1 / timing.batch_calls
            return value

        return call


@dataclass(frozen=True)
class Outcome:
    """What came of running all images.

    Attributes:
        layers: the output of each layer for all images.
        measurement: the calls.
        seconds: from the first call to the last answer.
    """

    layers: list[torch.Tensor]
    measurement: Measurement
    seconds: float


async def run(
    client: Any, weights: digits.Weights, images: torch.Tensor, callers: int, progress: Callable[[], None]
) -> Outcome:
    """Takes images [N, 1, 8, 8] one by one through the network by so many callers at once.

    Args:
        client: a layerwire.AsyncClient.
        weights: names that the server knows, or tensors.
        images: the images.
        callers: how many there are.
        progress: called after each image.
    """
    stopwatch = Stopwatch(client)
    layers = digits.network(weights)

    async def network(x: torch.Tensor) -> list[torch.Tensor]:
        outputs = []
        for layer in layers:
            x = await layer(stopwatch, x)
            outputs.append(x)
        return outputs

    outputs, seconds = await _each(network, images, callers, progress)
    return Outcome([torch.cat(layer) for layer in zip(*outputs, strict=True)], stopwatch.measurement, seconds)


async def run_program(
    client: Any, name: str, images: torch.Tensor, callers: int, progress: Callable[[], None]
) -> Outcome:
    """The same with a deployed network: one call an image."""
    stopwatch = Stopwatch(client)

    async def network(x: torch.Tensor) -> torch.Tensor:
        answer: Any = await stopwatch.run(name, {"input": x})
        logits: torch.Tensor = answer["output"]
        return logits

    outputs, seconds = await _each(network, images, callers, progress)
    return Outcome([torch.cat(outputs)], stopwatch.measurement, seconds)


async def _each(
    network: Callable[[torch.Tensor], Awaitable[Any]], images: torch.Tensor, callers: int, progress: Callable[[], None]
) -> tuple[list[Any], float]:
    """What the network gives for each image, and how long all took."""
    outputs: list[Any] = [None] * len(images)
    rest = iter(enumerate(torch.split(images, 1)))

    async def caller() -> None:
        for number, x in rest:
            outputs[number] = await network(x)
            progress()

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return outputs, time.perf_counter() - start
