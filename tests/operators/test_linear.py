"""Rules of products that the table of cases can't express: dtypes, costs, tiles whose rows depend on nothing else."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional as F

from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire_server.operators.linear import Bilinear, CosineSimilarity, Linear
from layerwire_server.operators.operator import TORCH_DTYPES
from tests.operators.local import same_bits

TILE = Linear.tile_rows
FLOAT32 = DTYPES["float32"]


def spec(*shape: int) -> TensorSpec:
    return TensorSpec(FLOAT32, shape)


def at_address(tensor: torch.Tensor, offset: int) -> torch.Tensor:
    """A copy that begins `offset` bytes after a multiple of 64, as the bytes of a message may."""
    memory = torch.empty(tensor.nbytes + 128, dtype=torch.uint8)
    start = -memory.data_ptr() % 64 + offset
    copy = memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
    return copy.copy_(tensor)


@pytest.mark.parametrize("name", ["linear", "bilinear"])
def test_dtypes_are_those_of_torch(name):
    taken = set()
    for wire, dtype in TORCH_DTYPES.items():
        x = torch.ones(2, 3).to(dtype)
        inputs = (x, torch.ones(4, 3).to(dtype)) if name == "linear" else (x, x, torch.ones(4, 3, 3).to(dtype))
        try:
            getattr(F, name)(*inputs, torch.ones(4).to(dtype))
        except RuntimeError:
            continue
        taken.add(wire)
    assert {"linear": Linear, "bilinear": Bilinear}[name].dtypes == taken


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("in_features", [1, 3, 7, 16, 17, 64, 100])
def test_rows_of_a_tile_depend_on_nothing_else(dtype, in_features):
    shuffled, generator = random.Random(in_features), torch.Generator().manual_seed(in_features)

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    for out_features in (1, 3, 10, 32):
        x1, x2 = normal(in_features), normal(5)
        weight, weight2, bias = (
            normal(out_features, in_features),
            normal(out_features, in_features, 5),
            normal(out_features),
        )
        answers = []
        for _ in range(6):
            place = shuffled.randrange(TILE)
            tiles = [normal(TILE, in_features), normal(TILE, 5)]
            for tile, row in zip(tiles, (x1, x2), strict=True):
                tile[place] = row
            one, two, first, second = (
                at_address(tensor, shuffled.choice((0, 8, 16, 32))) for tensor in (*tiles, weight, weight2)
            )
            linear, bilinear = Linear().run_tile(one, first, bias), Bilinear().run_tile(one, two, second, bias)
            answers.append((linear[0][place], bilinear[0][place]))
        assert all(same_bits(left, right) for answer in answers for left, right in zip(answer, answers[0], strict=True))
        tolerance = {"rtol": 0.02, "atol": 0.05} if dtype.itemsize == 2 else {}
        torch.testing.assert_close(answers[0][0], F.linear(x1, weight, bias), **tolerance)
        torch.testing.assert_close(answers[0][1], F.bilinear(x1, x2, weight2, bias), **tolerance)


def test_operations_count_multiply_and_add():
    assert Linear().operations((spec(32, 100), spec(10, 100), None), (spec(32, 10),)) == 32 * 10 * 100 * 2
    specs = (spec(4, 5), spec(4, 6), spec(3, 5, 6), None)
    assert 4 * 3 * 5 * 6 * 2 <= Bilinear().operations(specs, (spec(4, 3),)) <= 3 * 4 * 3 * 5 * 6 * 2


def test_bound_is_the_output():
    assert Linear().output_bytes_bound((spec(32, 100), spec(10, 100), None)) == 32 * 10 * 4
    assert Linear().output_bytes_bound((spec(1, 0), spec(2**40, 0), None)) == 2**42
    assert Linear().output_bytes_bound((spec(7, 3), spec(3), None)) == 7 * 4
    assert Bilinear().output_bytes_bound((spec(2, 4, 5), spec(2, 4, 6), spec(3, 5, 6), None)) == 2 * 4 * 3 * 4


@pytest.mark.parametrize(
    ("shapes", "dim", "multiples", "expected"),
    [
        (((6, 4), (6, 4)), 1, [2, 2], 2),
        (((6, 4), (1, 4)), 1, [2, 0], 2),
        (((4,), (6, 4)), -1, [0, 2], 2),
        (((6, 4), (6, 4)), 1, [2, 0], None),
        (((6, 4), (4,)), 0, [2, 0], None),
        (((), ()), 0, [1, 0], None),
        (((6, 4), (6, 4)), 0, [0, 0], 0),
    ],
    ids=str,
)
def test_cosine_similarity_keeps_rows_but_those_along_dim(shapes, dim, multiples, expected):
    assert CosineSimilarity(dim).row_multiple(tuple(spec(*shape) for shape in shapes), multiples) == expected
