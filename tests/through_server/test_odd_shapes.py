"""Five operators at once, of shapes that nobody else has, down to none at all: every answer is torch's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import layerwire
from tests.served import Server

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
DTYPES = [*FLOATS, torch.int8, torch.uint8, torch.int64]
SHAPES = [(1, 1), (1, 100_000), (0, 5), (3, 0), (), (0,), (7,), (2, 3, 1, 5, 2)]
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9, torch.float16: 2e-2, torch.bfloat16: 1e-1}
CALLERS, CALLS = 8, 12

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Inputs:
    """Random tensors, always the same."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)

    def integer(self, low: int, high: int) -> int:
        return int(self._random.integers(low, high))

    def float(self) -> torch.dtype:
        return FLOATS[self.integer(0, len(FLOATS))]

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype, *, finite: bool = False) -> torch.Tensor:
        x = torch.randn(shape, generator=self._generator) * 4
        if x.numel() > 3 and not finite and dtype.is_floating_point:
            x.view(-1)[:4] = torch.tensor([float("nan"), -0.0, float("inf"), -float("inf")])
        return x.to(dtype)


def relu(some: Inputs) -> Arguments:
    shape = [*SHAPES, (some.integer(1, 9), some.integer(1, 700))][some.integer(0, len(SHAPES) + 1)]
    return (some.tensor(shape, DTYPES[some.integer(0, len(DTYPES))]),), {}


def max_pool2d(some: Inputs) -> Arguments:
    shape = (some.integer(0, 4), some.integer(1, 4), some.integer(2, 40), some.integer(2, 40))
    return (some.tensor(shape, some.float()), 2), {}


def linear(some: Inputs) -> Arguments:
    dtype, features = some.float(), some.integer(1, 70)
    x = some.tensor((some.integer(0, 6), features), dtype, finite=True)
    return (x, some.tensor((some.integer(1, 9), features), dtype, finite=True)), {}


def softmax(some: Inputs) -> Arguments:
    return (some.tensor((some.integer(1, 6), some.integer(1, 300)), some.float()),), {"dim": -1}


def conv2d(some: Inputs) -> Arguments:
    dtype = FLOATS[some.integer(0, 2)]
    x = some.tensor((some.integer(1, 4), 3, some.integer(3, 20), some.integer(3, 20)), dtype, finite=True)
    return (x, some.tensor((some.integer(1, 5), 3, 3, 3), dtype, finite=True)), {"padding": 1}


EXACT = {relu, max_pool2d}


def check(output: torch.Tensor, make: Callable[[Inputs], Arguments], arguments: Arguments) -> None:
    expected = getattr(F, make.__name__)(*arguments[0], **arguments[1])
    tolerance = 0.0 if make in EXACT else TOLERANCES[expected.dtype]
    torch.testing.assert_close(output, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


async def calls(lw: layerwire.AsyncClient, make: Callable[[Inputs], Arguments], seed: int) -> None:
    some = Inputs(seed)
    for _ in range(CALLS):
        positional, named = arguments = make(some)
        check(await getattr(lw, make.__name__)(*positional, **named), make, arguments)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
async def test_each_call_has_a_shape_of_its_own(served: Server) -> None:
    async with layerwire.AsyncClient(served.address) as lw:
        makers = (relu, max_pool2d, linear, softmax, conv2d)
        seeds = range(CALLERS * len(makers))
        await asyncio.gather(*(calls(lw, makers[seed % len(makers)], seed) for seed in seeds))
