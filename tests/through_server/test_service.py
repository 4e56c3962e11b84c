"""What surrounds the operators: estimates, the server's account of itself, its metrics."""

from __future__ import annotations

import numpy as np

import layerwire
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc
from layerwire.wire.dtypes import DTYPE_NAMES
from layerwire_server.operators import OPERATORS
from tests.operator_cases import cases
from tests.operators.local import message_of, request_of
from tests.served import PATIENCE_SECONDS, Server


def bare(message: pb.Call) -> pb.EstimateRequest:
    """The call without its tensors' data."""
    family = message.WhichOneof("request") or ""
    request = getattr(message, family)
    for field, value in request.ListFields():
        if field.message_type is not None and field.message_type.name == "Tensor":
            value.ClearField("content")
    return pb.EstimateRequest(**{family: request})


def test_estimates_are_what_torch_gives(stub: layerwire_pb2_grpc.LayerwireServiceStub) -> None:
    """Shapes and bytes of every case, from shapes alone."""
    for case in cases():
        message = message_of(request_of(case))
        estimate = stub.Estimate(bare(message), timeout=PATIENCE_SECONDS)
        expected = case.answer()
        got = [(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape)) for tensor in estimate.outputs]
        assert got == [(str(t.dtype).removeprefix("torch."), tuple(t.shape)) for t in expected], case.id
        assert estimate.output_bytes == sum(tensor.nbytes for tensor in expected), case.id


def test_server_tells_what_it_is(client: layerwire.Client) -> None:
    info = client.server_info()
    assert list(info.operators) == sorted(name for family in OPERATORS.values() for name in family)
    assert [worker.device for worker in info.workers] == ["cpu"]
    assert all(worker.healthy for worker in info.workers)
    assert info.limits.max_queue_calls == 16384
    assert info.numerics["cudnn.allow_tf32"] == "False"


def test_metrics_count_every_call_and_every_error(served: Server, client: layerwire.Client) -> None:
    names = ["layerwire_calls_total", "layerwire_call_seconds_count", "layerwire_queue_seconds_count"]
    before = {name: served.metric(name) for name in names}
    for _ in range(20):
        client.relu(np.ones(3, np.float32))
    for _ in range(5):
        try:
            client.max_pool2d(np.ones((1, 1, 4, 4), np.float32), 0)
        except layerwire.errors.InvalidArgumentError as error:
            assert error.field == "kernel_size"
    after = {name: served.metric(name) for name in names}
    assert [after[name] - before[name] for name in names] == [25, 20, 20]
