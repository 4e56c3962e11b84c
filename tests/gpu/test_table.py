"""The whole table of cases on a CUDA device: like torch there, batched = alone, attacks on indices poison nothing."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest
import torch

from layerwire.errors import InvalidArgumentError, LayerwireError
from layerwire_server.operators.operator import Merge
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.running.device import open_device
from tests.operator_cases import Bad, Case, T, bad_cases, cases
from tests.operators.local import Local, same_bits

pytestmark = pytest.mark.gpu
CASES = cases()
BAD = bad_cases()


@pytest.fixture(scope="module")
def local() -> Local:
    return Local(open_device("cuda:0", 1))


@pytest.fixture(scope="module")
def deterministic() -> Local:
    return Local(open_device("cuda:0", 1), deterministic=True)


def on_device(value: Any) -> Any:
    return value.cuda() if isinstance(value, torch.Tensor) else value


def expected_of(case: Case) -> tuple[torch.Tensor, ...]:
    """torch's answer on the same device; the reference's own where there is one."""
    if case.reference is not None:
        return case.answer()
    args, kwargs = case.arguments()
    function = getattr(torch.nn.functional, case.function)
    answer = function(*map(on_device, args), **{name: on_device(value) for name, value in kwargs.items()})
    return tuple(value.cpu() for value in (answer if isinstance(answer, tuple) else (answer,)))


def decoded(local: Local, case: Case) -> CallGroup:
    try:
        return local.decode(case)
    except InvalidArgumentError as error:
        if "dtype" in str(error):
            pytest.skip(f"the device lacks it: {error}")
        raise


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_alone_is_torch(local: Local, case: Case) -> None:
    call = decoded(local, case)
    (got,) = local.run([call])
    for spec, left, right in zip(call.plan.outputs, got, expected_of(case), strict=True):
        assert tuple(right.shape) == spec.shape
        torch.testing.assert_close(left, right, equal_nan=True)


@pytest.mark.parametrize("mode", ["local", "deterministic"])
def test_batched_is_alone(request: pytest.FixtureRequest, mode: str) -> None:
    local: Local = request.getfixturevalue(mode)
    lanes: dict[LaneKey, list[tuple[Case, CallGroup]]] = defaultdict(list)
    for case in CASES:
        for _ in range(3):
            try:
                call = local.decode(case)
            except InvalidArgumentError:
                continue
            lanes[call.key].append((case, call))
    shuffled, differing, compared = random.Random(0), [], 0
    for key, members in lanes.items():
        if key.merge is Merge.ALONE:
            continue
        alone = [local.run([call])[0] for _, call in members]
        order = list(range(len(members)))
        shuffled.shuffle(order)
        for index, got in zip(order, local.run([members[index][1] for index in order]), strict=True):
            for left, right in zip(got, alone[index], strict=True):
                compared += 1
                if (mode == "deterministic" or key.operator.tile_rows is None) and not same_bits(left, right):
                    differing.append(members[index][0].id)
                torch.testing.assert_close(left, right, equal_nan=True)
    assert compared > 300
    assert not differing


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.id)
def test_bad_input_is_refused(local: Local, case: Bad) -> None:
    with pytest.raises(LayerwireError) as caught:
        local.decode(case)
    assert caught.value.code.name == case.code


@pytest.mark.parametrize("index", [-1, 16, 2**31, 2**32 + 3, -(2**63), 2**63 - 1])
def test_attacks_on_indices_leave_the_device_alone(local: Local, index: int) -> None:
    """On CUDA an index out of range poisons the context for good; pytorch#197409 lets 2**32 + 3 through as 3."""
    values = T(values=[[[[1.0, 2.0], [3.0, 4.0]]]])
    bad = T(values=[[[[0, 2], [8, index]]]], dtype="int64")
    with pytest.raises(InvalidArgumentError):
        local.decode(Case("attack", "max_unpool2d", (values, bad, 2)))
    good = local.decode(Case("good", "max_unpool2d", (values, T(values=[[[[0, 2], [8, 10]]]], dtype="int64"), 2)))
    for _ in range(1000 // 6):
        (got,) = local.run([good])
        assert got[0].sum().item() == 10.0
