"""torch's calls of messages: the answers of all operator cases are torch's own."""

from __future__ import annotations

import pytest
import torch

from layerwire.v1 import operators_pb2
from layerwire_bench.answers import torch_calls
from tests.operator_cases import cases
from tests.operators.local import request_of

CASES = [case for case in cases() if not torch_calls.draws_numbers(request_of(case).operator)]  # which torch can't know
NO_KERNEL = {"local_response_norm-float16-4d"}  # which the server computes by another that torch has


def as_torch(value) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.as_tensor(value)


def assert_close(case, one: torch.Tensor, other: torch.Tensor, rtol: float, atol: float) -> None:
    torch.testing.assert_close(one, other, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{case.id}: {text}")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_every_case_is_torchs_own_answer():
    """The table of operator cases: what the request's message makes of torch is what the case's own call gives."""
    assert len(CASES) > 400
    torch.set_num_threads(1)  # of several values that share a place, one of several threads keeps any
    for case in CASES:
        request = request_of(case)
        call, outputs = torch_calls.torch_call(request.operator, list(request.tensors))
        if case.id in NO_KERNEL:
            with pytest.raises(NotImplementedError):
                call(*map(as_torch, request.tensors.values()))
            continue
        found = call(*map(as_torch, request.tensors.values()))
        found = found if isinstance(found, tuple) else (found,)
        expected = case.answer()
        assert len(outputs) == len(found) == len(expected), case.id
        rtol, atol = (0, 0) if case.tolerance is None or case.reference is None else case.tolerance
        for one, other in zip(found, expected, strict=True):
            assert_close(case, one, other, rtol, atol)


def test_every_operator_of_the_contract_has_a_call():
    names = {
        field.name
        for name in ("Pool", "Unpool", "Linear", "Activate", "Convolve", "Normalize")
        for field in getattr(operators_pb2, f"{name}Operator").DESCRIPTOR.fields
    }
    assert names - set(torch_calls.CALLS) == {"gumbel_softmax"}  # which is drawn by the server alone
