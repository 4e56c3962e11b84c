"""What operators say of rows: answers of calls joined along axis 0 are those of the calls by themselves."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from layerwire.errors import InvalidArgumentError
from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire_server.operators import OPERATORS, TRANSFORMS
from layerwire_server.operators.operator import TORCH_DTYPES, WIRE_DTYPES, Operator, Specs, Tensors
from layerwire_server.operators.transform import Transform
from tests.operator_cases import Case, cases
from tests.operators.local import Local
from tests.operators.transform_calls import Draw, fields, operator_of, shapes, tensor

FLOAT32 = DTYPES["float32"]
ROWS_MIXED_BY_SOME = set(TRANSFORMS) - {"identity", "dropout", "flatten", "channel_shuffle", "upsample"}


def _specs(tensors: Tensors) -> Specs:
    return tuple(None if x is None else TensorSpec(WIRE_DTYPES[x.dtype], tuple(x.shape)) for x in tensors)


def _join(calls: list[Tensors], multiples: list[int]) -> Tensors:
    """One call of several, whose inputs without rows are the same."""
    return tuple(
        torch.cat([x for x in inputs if x is not None]) if multiple else inputs[0]
        for inputs, multiple in zip(zip(*calls, strict=True), multiples, strict=True)
    )


def _node(draw: Draw, name: str) -> tuple[Transform, list[tuple[int, ...]], list[int]]:
    """A transform, its inputs' shapes at two rows, and how many entries of axis 0 each row has."""
    multiple = draw.random.choice((1, 1, 2))
    sizes, multiples = [], []
    for shape in shapes(draw, name):
        odd = multiple if draw.random.random() < 0.9 else 3
        multiples.append(odd if shape and draw.random.random() < 0.7 else 0)
        sizes.append((2 * multiples[-1], *shape[1:]) if multiples[-1] else shape)
    return operator_of(name, fields(draw, name, sizes[0]), len(sizes)), sizes, multiples


def _check_rows(operator: Transform, sizes: list[tuple[int, ...]], multiples: list[int], per_row: int) -> None:
    """Calls of one and of two rows, and both joined."""
    generator = torch.Generator().manual_seed(0)
    entries = [
        [(rows * multiple, *shape[1:]) if multiple else shape for shape, multiple in zip(sizes, multiples, strict=True)]
        for rows in (1, 2)
    ]
    calls: list[Tensors] = [tuple(tensor(generator, TensorSpec(FLOAT32, shape)) for shape in one) for one in entries]
    calls[1] = tuple(two if multiple else one for one, two, multiple in zip(*calls, multiples, strict=True))
    answers = []
    for inputs in (*calls, _join(calls, multiples)):
        operator.check(_specs(inputs))
        answers.append(operator.run(*inputs)[0])
    assert [answer.shape[0] for answer in answers] == [per_row, 2 * per_row, 3 * per_row]
    torch.testing.assert_close(answers[2], torch.cat(answers[:2]), equal_nan=True)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_transforms_tell_the_truth_about_rows(name: str) -> None:
    counts: Counter[str] = Counter()
    for seed in range(500):
        draw = Draw(random.Random(seed), 0.0)
        try:
            operator, sizes, multiples = _node(draw, name)
            specs = tuple(TensorSpec(FLOAT32, shape) for shape in sizes)
            operator.check(specs)
        except InvalidArgumentError:
            continue
        per_row = operator.row_multiple(specs, multiples)
        if per_row is None:
            counts["mixed"] += 1
        elif any(multiples):
            _check_rows(operator, sizes, multiples, per_row)
            counts["rows"] += 1
        else:
            assert per_row == 0
            counts["none"] += 1
    assert counts["rows"] >= 15, counts
    assert counts["none"] >= 5, counts
    assert (counts["mixed"] >= 15) == (name in ROWS_MIXED_BY_SOME), counts


@pytest.mark.parametrize(
    ("name", "parameters", "sizes", "multiples", "expected"),
    [
        ("reshape", {"shape": [-1, 8]}, [(6, 4)], [2], 1),
        ("reshape", {"shape": [-1, 2]}, [(6, 4)], [2], 4),
        ("reshape", {"shape": [-1, 12]}, [(6, 4)], [2], None),
        ("reshape", {"shape": [6, -1]}, [(6, 4)], [2], None),
        ("reshape", {"shape": [-1, 4]}, [(6, 0)], [2], None),
        ("flatten", {}, [(6, 4)], [2], 8),
        ("flatten", {"start_dim": 1}, [(6, 4, 5)], [2], 2),
        ("permute", {"dims": [0, 2, 1]}, [(6, 4, 5)], [2], 2),
        ("permute", {"dims": [1, 0]}, [(6, 4)], [2], None),
        ("concatenate", {"dim": 1}, [(6, 4), (6, 5)], [2, 2], 2),
        ("concatenate", {"dim": 1}, [(6, 4), (6, 5)], [2, 0], None),
        ("concatenate", {}, [(6, 4), (6, 4)], [2, 2], None),
        ("add", {}, [(6, 4), (4,)], [2, 0], 2),
        ("add", {}, [(6, 4), (1, 4)], [2, 0], 2),
        ("add", {}, [(6, 4), (6, 1)], [2, 0], None),
        ("add", {}, [(6, 4), (6, 1)], [2, 2], 2),
        ("add", {}, [(6,), (4, 6)], [2, 0], None),
        ("add", {}, [(1, 4), (3, 4)], [1, 0], None),
        ("add", {}, [(2, 4), (1, 4)], [2, 1], None),
        ("matmul", {}, [(6, 4), (4, 3)], [1, 0], 1),
        ("matmul", {}, [(6, 2, 4), (4, 3)], [1, 0], 1),
        ("matmul", {}, [(5, 4), (6, 4, 3)], [0, 1], 1),
        ("matmul", {}, [(6, 2, 4), (6, 4, 3)], [1, 1], 1),
        ("matmul", {}, [(3, 4), (4, 2)], [0, 1], None),
        ("matmul", {}, [(4,), (4, 2)], [1, 0], None),
        ("matmul", {}, [(2, 4), (5, 4, 3)], [1, 0], None),
        ("mean", {"dims": [1]}, [(6, 4)], [2], 2),
        ("mean", {}, [(6, 4)], [2], None),
        ("narrow", {"dim": 0, "start": 0, "length": 6}, [(6, 4)], [2], None),
        ("pad", {"pad": [1, 1, 0, 0]}, [(6, 4)], [2], 2),
        ("pad", {"pad": [1, 1, 0, 1]}, [(6, 4)], [2], None),
        ("upsample", {"size": [3]}, [(6, 4, 5)], [2], 2),
    ],
    ids=str,
)
def test_multiples(name, parameters, sizes, multiples, expected) -> None:
    operator = operator_of(name, parameters, len(sizes))
    specs = tuple(TensorSpec(FLOAT32, shape) for shape in sizes)
    operator.check(specs)
    assert operator.row_multiple(specs, multiples) == expected
    assert operator.row_multiple(specs, [0] * len(sizes)) == 0


def _contents(local: Local, case: Case) -> tuple[Operator, Specs, Tensors]:
    """A case's operator, and its inputs as they come."""
    call = local.decode(case)
    tensors = []
    for spec, content in zip(call.plan.specs, call.contents, strict=True):
        dtype = None if spec is None else TORCH_DTYPES[spec.dtype]
        if spec is None or not content:
            tensors.append(None if spec is None else torch.empty(spec.shape, dtype=dtype))
        else:
            tensors.append(torch.frombuffer(bytearray(content), dtype=dtype).view(spec.shape))
    return call.plan.operator, call.plan.specs, tuple(tensors)


def _check_case(case: Case, operator: Operator, inputs: Tensors, multiples: list[int]) -> None:
    """The call, the call with its rows turned round, and both joined."""
    turned = tuple(x.flip(0) if x is not None and rows else x for x, rows in zip(inputs, multiples, strict=True))
    joined = _join([inputs, turned], multiples)
    operator.check(_specs(joined))
    alone = [operator.run(*one) for one in (inputs, turned)]
    rtol, atol = max(case.tolerance or (0.0, 0.0), (1e-3, 1e-3))  # of rows that are mixed nothing is left alike
    for index, answer in enumerate(operator.run(*joined)):
        expected = torch.cat([one[index] for one in alone])
        torch.testing.assert_close(
            answer, expected, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{case.id}: {text}"
        )


def test_other_operators_tell_the_truth_about_rows() -> None:
    local, compared = Local(), Counter[str]()
    for case in cases():
        operator, specs, inputs = _contents(local, case)
        roles = zip(operator.inputs, specs, strict=True)
        multiples = [int(spec is not None and not role.shared) for role, spec in roles]
        scalar = any(multiple and x.dim() == 0 for multiple, x in zip(multiples, inputs, strict=True) if x is not None)
        if scalar or operator.row_multiple(specs, multiples) is None:
            continue
        assert operator.row_multiple(specs, multiples) == 1
        _check_case(case, operator, inputs, multiples)
        compared[operator.family] += 1
    assert all(compared[family] >= 10 for family in OPERATORS), compared
