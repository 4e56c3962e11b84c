"""`map` through a server: every row of the table many at once, the same bits as call by call."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

import layerwire
from layerwire.calls import Calls
from layerwire.calls.map_calls import WEIGHTS
from tests.operator_cases import Case, cases
from tests.served import PATIENCE_SECONDS, Server


def arguments(case: Case) -> tuple[inspect.BoundArguments, list[str]]:
    """A case's, and which of them have a tensor for each call."""
    args, kwargs = case.arguments()
    bound = inspect.signature(getattr(Calls, case.function)).bind(None, *args, **kwargs)
    names = [name for name, value in bound.arguments.items() if isinstance(value, torch.Tensor) and name not in WEIGHTS]
    return bound, names


def rows_of(name: str, tensor: torch.Tensor) -> list[torch.Tensor]:
    """Tensors for three calls that differ, as far as the operator takes any numbers."""
    return [tensor, tensor.flip(-1) if name == "input" and tensor.ndim else tensor, tensor]


def bits(answer: Any) -> list[bytes]:
    tensors = answer if isinstance(answer, tuple) else (answer,)
    return [tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors if tensor.numel()]


def test_every_operator_many_at_once_is_call_by_call(client: layerwire.Client) -> None:
    lw = client.options(deterministic=True)
    compared = 0
    for case in cases():
        bound, names = arguments(case)
        if not names or case.function in ("gumbel_softmax", "rrelu"):
            continue
        rows = {name: rows_of(name, bound.arguments[name]) for name in names}
        futures = []
        for row in range(3):
            bound.arguments.update({name: tensors[row] for name, tensors in rows.items()})
            futures.append(getattr(lw.submit, case.function)(*bound.args[1:], **bound.kwargs))
        bound.arguments.update(rows)
        answers = getattr(lw.map, case.function)(*bound.args[1:], **bound.kwargs, return_exceptions=True)
        for future, answer in zip(futures, answers, strict=True):
            error = future.exception()
            if error is not None:  # numbers that the operator takes in one order only
                assert (type(answer), str(answer)) == (type(error), str(error)), case.id
            else:
                assert bits(answer) == bits(future.result()), case.id
                compared += 1
    assert compared > 1000


async def test_thousands_at_once_with_wrong_ones_among_them(served: Server) -> None:
    generator = np.random.default_rng(0)
    rows = [generator.normal(size=(1 + place % 3, 10)).astype("f4") for place in range(3000)]
    weight = generator.normal(size=(4, 10)).astype("f4")
    wrong = {place: rows[place][:, :-1].copy() for place in (7, 8, 1500, 2999)}
    mixed = [wrong.get(place, row) for place, row in enumerate(rows)]
    async with layerwire.AsyncClient(served.address, timeout=PATIENCE_SECONDS) as lw:
        await lw.put_weights("map.weight", weight)
        answers = await lw.map.linear(mixed, "map.weight", return_exceptions=True)
    for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        if place in wrong:
            assert isinstance(answer, layerwire.errors.InvalidArgumentError)
        else:
            assert isinstance(answer, np.ndarray)
            np.testing.assert_allclose(answer, row @ weight.T, rtol=1e-4, atol=1e-5)


def test_gradients_many_at_once(client: layerwire.Client) -> None:
    generator = np.random.default_rng(0)
    x, y = (generator.normal(size=(50, 2, 3)).astype("f4") for _ in range(2))
    gradients = client.map.differentiate(lambda f: f.relu(x), y, ["input"])
    for row, gradient, answer in zip(x, y, gradients, strict=True):
        np.testing.assert_array_equal(answer["input"], np.where(row > 0, gradient, 0))
