"""Over the whole table, through the server: remote = torch, unary = stream, numpy = torch, bad input refused."""

from __future__ import annotations

import random
from typing import Any

import grpc
import numpy as np
import pytest
import torch

import layerwire
from layerwire.errors import LayerwireError
from layerwire.v1 import layerwire_pb2_grpc
from tests.operator_cases import Bad, Case, bad_cases, cases
from tests.operators.local import Local, message_of, request_of
from tests.served import PATIENCE_SECONDS
from tests.through_server.conftest import unary

CASES = cases()
BAD = bad_cases()


def submit(client: layerwire.Client, case: Case | Bad, change: Any = lambda value: value) -> Any:
    """The future of a case's answer; `change` is done to each argument."""
    args, kwargs = case.arguments()
    method = getattr(client.submit, case.function)
    return method(*map(change, args), **{name: change(value) for name, value in kwargs.items()})


def answer(future: Any) -> tuple[Any, ...]:
    """A future's answer as a tuple."""
    value = future.result(PATIENCE_SECONDS)
    return value if isinstance(value, tuple) else (value,)


LOCAL = Local()


def assert_answers(case: Case, got: tuple[Any, ...]) -> None:
    """Compares with torch's answer; where the operator has tiles, last bits may differ, for others share the batch."""
    tiled = LOCAL.decode(case).key.operator.tile_rows is not None
    for left, right in zip(got, case.answer(), strict=True):
        rtol, atol = case.tolerance or ((1e-5, 1e-6) if tiled else (0.0, 0.0))
        torch.testing.assert_close(
            torch.as_tensor(left), right, rtol=rtol, atol=atol, equal_nan=True, msg=lambda text: f"{case.id}: {text}"
        )


def test_remote_is_torch_in_any_company(client: layerwire.Client) -> None:
    """Every case three times, shuffled, all in flight at once."""
    order = CASES * 3
    random.Random(1).shuffle(order)
    futures = [(case, submit(client, case)) for case in order]
    for case, future in futures:
        got = answer(future)
        assert all(isinstance(value, torch.Tensor) for value in got) or not _has_tensors(case)
        assert_answers(case, got)


def _has_tensors(case: Case) -> bool:
    args, kwargs = case.arguments()
    return any(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values()))


def _to_numpy(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value


def test_numpy_is_torch(client: layerwire.Client) -> None:
    """numpy in, numpy out, the same bits as torch in; but for bfloat16, which numpy lacks."""
    chosen = [case for case in CASES if not _has_bfloat16(case)]
    assert len(chosen) > 250
    lw = client.options(deterministic=True)
    pairs = [(case, submit(lw, case), submit(lw, case, _to_numpy)) for case in chosen]
    for case, by_torch, by_numpy in pairs:
        for left, right in zip(answer(by_torch), answer(by_numpy), strict=True):
            assert isinstance(right, np.ndarray), case.id
            assert right.flags.writeable
            np.testing.assert_array_equal(left.numpy(), right, err_msg=case.id)


def _has_bfloat16(case: Case) -> bool:
    args, kwargs = case.arguments()
    return any(getattr(value, "dtype", value) is torch.bfloat16 for value in (*args, *kwargs.values()))


def test_unary_is_stream(client: layerwire.Client, stub: layerwire_pb2_grpc.LayerwireServiceStub) -> None:
    chosen = [(case, message_of(request_of(case))) for case in CASES]
    for _, message in chosen:
        getattr(message, message.WhichOneof("request") or "").options.deterministic = True
    for start in range(0, len(chosen), 64):  # as many as a connection may have open is plenty
        some = chosen[start : start + 64]
        by_unary = [unary(stub, message) for _, message in some]
        by_stream = [submit(client.options(deterministic=True), case) for case, _ in some]
        for (case, _), one, other in zip(some, by_unary, by_stream, strict=True):
            response = one.result()
            outputs = [value for field, value in response.ListFields() if field.name != "timing"]
            for left, right in zip(outputs, answer(other), strict=True):
                tensor = torch.as_tensor(right).contiguous()
                assert tuple(left.shape) == tuple(tensor.shape), case.id
                flat = tensor.view(-1)
                assert left.data == (flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""), case.id


def test_bad_input_is_refused_and_neighbours_are_right(client: layerwire.Client) -> None:
    """All bad rows in flight at once among good ones: the status, the field, and nobody else's answer."""
    mixed: list[Case | Bad] = [*CASES, *BAD]
    random.Random(2).shuffle(mixed)
    futures = [(case, submit(client, case)) for case in mixed]
    wrong = []
    for case, future in futures:
        if isinstance(case, Case):
            assert_answers(case, answer(future))
            continue
        with pytest.raises(LayerwireError) as caught:
            future.result(PATIENCE_SECONDS)
        error = caught.value
        if (error.code.name, error.field) != (case.code, case.field):
            wrong.append((case.id, error.code.name, error.field, str(error)))
    assert not wrong


def test_errors_of_unary_calls_name_the_field(stub: layerwire_pb2_grpc.LayerwireServiceStub) -> None:
    from google.rpc import status_pb2

    from layerwire.errors import from_status

    message = message_of(request_of(next(case for case in BAD if case.function == "max_pool2d")))
    with pytest.raises(grpc.RpcError) as caught:
        unary(stub, message).result()
    details = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_status(status_pb2.Status.FromString(details)).field
