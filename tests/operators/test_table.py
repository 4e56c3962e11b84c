"""Over the whole table of cases, in this process: local = torch, inferred = real, batched = alone."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
import torch

from layerwire.errors import LayerwireError
from layerwire_server.operators.operator import Merge
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.plan import LaneKey
from tests.operator_cases import Bad, Case, bad_cases, cases
from tests.operators.local import Local, same_bits

CASES = cases()
BAD = bad_cases()


@pytest.fixture(scope="module")
def local() -> Local:
    return Local()


def test_table_is_large_and_ids_are_its_own() -> None:
    assert len(CASES) >= 320
    assert len(BAD) >= 150
    ids = [case.id for case in (*CASES, *BAD)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_alone_is_torch(local: Local, case: Case) -> None:
    call = local.decode(case)
    (got,) = local.run([call])
    expected = case.answer()
    assert len(got) == len(expected)
    for spec, left, right in zip(call.plan.outputs, got, expected, strict=True):
        assert tuple(right.shape) == spec.shape, "what the meta device inferred is what torch gives"
        assert left.dtype == right.dtype
        rtol, atol = case.tolerance or (0.0, 0.0)
        torch.testing.assert_close(left, right, rtol=rtol, atol=atol, equal_nan=True)
    if case.expected is not None:
        assert got[0].tolist() == pytest.approx(case.expected) if isinstance(case.expected, float) else True
        torch.testing.assert_close(got[0], torch.as_tensor(case.expected, dtype=got[0].dtype), rtol=1e-6, atol=1e-6)


def _lanes(local: Local) -> dict[LaneKey, list[tuple[Case, CallGroup]]]:
    lanes: dict[LaneKey, list[tuple[Case, CallGroup]]] = defaultdict(list)
    for case in CASES:
        for _ in range(3):
            call = local.decode(case)
            lanes[call.key].append((case, call))
    return {key: members for key, members in lanes.items() if key.merge is not Merge.ALONE}


def _assert_batched_is_alone(local: Local, *, always_bits: bool) -> int:
    shuffled, compared = random.Random(0), 0
    for key, members in _lanes(local).items():
        alone = [local.run([call])[0] for _, call in members]
        order = list(range(len(members)))
        shuffled.shuffle(order)
        batched = local.run([members[index][1] for index in order])
        for index, got in zip(order, batched, strict=True):
            case = members[index][0]
            for left, right in zip(got, alone[index], strict=True):
                if always_bits or key.operator.tile_rows is None:
                    assert same_bits(left, right), case.id
                else:
                    rtol, atol = case.tolerance or (1e-5, 1e-5)
                    torch.testing.assert_close(left, right, rtol=rtol, atol=atol, equal_nan=True)
                compared += 1
    return compared


def test_batched_is_alone(local: Local) -> None:
    assert _assert_batched_is_alone(local, always_bits=False) > 300


def test_batched_is_alone_bit_for_bit_when_deterministic() -> None:
    assert _assert_batched_is_alone(Local(deterministic=True), always_bits=True) > 300


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_bad_input_is_refused_by_its_field(local: Local, case: Bad) -> None:
    with pytest.raises(LayerwireError) as caught:
        local.decode(case)
    assert caught.value.code.name == case.code
    assert caught.value.field == case.field, caught.value
    assert str(caught.value).startswith(caught.value.operator)
