"""Elementwise operators whose parts aren't padded: every element has the same bits at every place of a batch."""

from __future__ import annotations

import pytest
import torch

from layerwire.errors import InvalidArgumentError
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.operator import TORCH_DTYPES, Merge, Operator
from tests.cases import activate
from tests.operators.local import Local, same_bits

LENGTHS = (1, 2, 3, 7, 8, 15, 16, 31, 33, 63, 64, 65, 127)  # tails behind vectors of all widths, and no vector at all


def exact_operators() -> list[Operator]:
    local = Local()
    operators = (local.decode(case).plan.operator for case in activate.CASES)
    return list(dict.fromkeys(operator for operator in operators if operator.exact_dtypes))


def values_of(dtype: torch.dtype) -> torch.Tensor:
    """Any bits at all, numbers near zero, and those that differ from others by sign or payload only."""
    generator = torch.Generator().manual_seed(0)
    some = torch.randint(0, 256, (4096 * dtype.itemsize,), dtype=torch.uint8, generator=generator).view(dtype)
    if not dtype.is_floating_point:
        return some
    limits = torch.finfo(dtype)
    special = [
        0.0,
        float("inf"),
        float("nan"),
        limits.tiny,
        limits.tiny / 4,
        limits.max,
        limits.eps,
        0.5,
        1.0,
        3.0,
        6.0,
    ]
    signed = torch.tensor([*special, *(-value for value in special)], dtype=torch.float64)
    normal = torch.randn(2048, dtype=torch.float64, generator=generator) * 3
    return torch.cat([some, signed.to(dtype), normal.to(dtype)])


@pytest.mark.parametrize("operator", exact_operators(), ids=repr)
def test_an_element_has_the_same_bits_at_every_place(operator: Operator) -> None:
    for code in sorted(operator.dtypes & operator.exact_dtypes):
        try:
            operator.check((TensorSpec(code, (8,)),))
        except InvalidArgumentError:
            continue  # parameters that this dtype can't have
        x = values_of(TORCH_DTYPES[code])
        with torch.inference_mode():
            (expected,) = operator.run(x)
            for length in LENGTHS:
                parts = [operator.run(part.clone())[0] for part in x.split(length)]
                assert same_bits(torch.cat(parts), expected), (code, length)


def test_they_are_not_padded_and_others_are() -> None:
    local = Local()
    plans = [local.decode(case).plan for case in activate.CASES]
    elementwise = [plan for plan in plans if plan.placement.merge is Merge.ELEMENTWISE and plan.specs[0] is not None]
    assert {plan.elements % 64 > 0 for plan in elementwise if plan.operator.name == "relu"} == {True, False}
    assert all(plan.elements % 64 == 0 for plan in elementwise if not plan.operator.exact_dtypes)


def test_there_are_some() -> None:
    names = {operator.name for operator in exact_operators()}
    assert names == {"relu", "relu6", "softsign", "leaky_relu", "hardshrink", "threshold", "hardtanh"}
