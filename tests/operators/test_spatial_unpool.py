"""Unpooling where places are named twice, and indices that must never reach a kernel."""

from __future__ import annotations

import pytest
import torch

from layerwire.errors import InvalidArgumentError
from layerwire_server.operators.unpool import MaxUnpool, write_in_order, write_unordered


def last_wins(values, indices, size):
    """Value by value, in row-major order."""
    output = [[0.0] * size for _ in values]
    for row, (taken, places) in enumerate(zip(values.tolist(), indices.tolist(), strict=True)):
        for value, place in zip(taken, places, strict=True):
            output[row][place] = value
    return torch.tensor(output)


PATTERNS = [
    (rows, taken, size, seed)
    for rows, taken, size in ((1, 1, 1), (1, 64, 1), (3, 50, 7), (5, 40, 400), (2, 300, 20))
    for seed in range(20)
]


@pytest.mark.parametrize("write", [write_in_order, write_unordered])
def test_last_value_stays(write):
    for rows, taken, size, seed in PATTERNS:
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(rows, taken, generator=generator)
        indices = torch.randint(0, size, (rows, taken), generator=generator)
        assert torch.equal(write(values, indices, size), last_wins(values, indices, size))


@pytest.mark.parametrize("write", [write_in_order, write_unordered])
def test_threads_do_not_race_for_a_place(write):
    taken = 200_000  # torch's max_unpool2d, with two threads, keeps the 100,000th value at times
    values = torch.arange(taken, dtype=torch.float32)[None]
    for _ in range(20):
        assert write(values, torch.zeros(1, taken, dtype=torch.int64), 4).tolist() == [[taken - 1, 0, 0, 0]]


@pytest.mark.parametrize("write", [write_in_order, write_unordered])
def test_no_rows_give_no_rows(write):
    assert write(torch.empty(0, 4), torch.empty(0, 4, dtype=torch.int64), 9).shape == (0, 9)


@pytest.mark.gpu
def test_cuda_keeps_the_same_value_as_the_cpu():
    for rows, taken, size, seed in PATTERNS:
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(rows, taken, generator=generator)
        indices = torch.randint(0, size, (rows, taken), generator=generator)
        got = write_unordered(values.cuda(), indices.cuda(), size).cpu()
        assert torch.equal(got, last_wins(values, indices, size))


@pytest.mark.parametrize("index", [-1, 16, 2**31, 2**32 + 3, 2**62, -(2**63)])
def test_first_bad_position_is_named(index):
    indices = torch.zeros(2, 3, 2, 2, dtype=torch.int64)
    indices[1, 0, 1, 0] = index
    indices[1, 2, 0, 0] = 99
    unpool = MaxUnpool((2, 2), (2, 2), (0, 0), None)
    with pytest.raises(InvalidArgumentError, match=rf"must be 0 to 15, got {index} at \[1, 0, 1, 0\]"):
        unpool.check_values((torch.zeros(2, 3, 2, 2), indices))
