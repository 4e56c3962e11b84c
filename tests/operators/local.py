"""Cases run by the worker's own parts in this process: encoded by the SDK, decoded, planned, joined, run, split."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from layerwire.calls import Request, Requests
from layerwire.transport.call import Call as ClientCall
from layerwire.transport.options import Options
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire.protobuf import prefix
from layerwire_server.operators.operator import TORCH_DTYPES
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.request_kinds import KINDS
from layerwire_server.worker.running.device import Device, open_device
from layerwire_server.worker.running.execution import execute
from tests.operator_cases import Bad, Case


class _Nobody:
    def done(self) -> bool:
        return True

    def set_result(self, result: Any) -> None:
        raise AssertionError

    def set_exception(self, exception: Any) -> None:
        raise AssertionError


def request_of(case: Case | Bad) -> Request:
    """What the client makes of a case."""
    args, kwargs = case.arguments()
    request = getattr(Requests(), case.function)(*args, **kwargs)
    assert isinstance(request, Request)
    return request


def message_of(request: Request) -> pb.Call:
    """The message that the client sends for a request."""
    call = ClientCall(request, Options(), _Nobody())
    body = b"".join(call.entry.parts(1, call.data))
    frame = pb.StreamRequest.FromString(prefix(1, len(body)) + body)
    return frame.calls.calls[0]


class _NoStore:
    """A catalog that nobody should ask."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


NO_STORE: Any = _NoStore()


class Local:
    """A device and a decoder."""

    def __init__(self, device: Device | None = None, *, deterministic: bool = False) -> None:
        self.device = device or open_device("cpu", torch.get_num_threads())
        plans = Plans(CallLimits(1 << 26, 2e11), self.device.kind)
        self.decoder = CallDecoder(plans, NO_STORE, deterministic=deterministic)

    def decode(self, case: Case | Bad) -> CallGroup:
        """The worker's call of a case."""
        message = message_of(request_of(case))
        family = message.WhichOneof("request")
        assert family is not None
        return self.decoder.decode(KINDS[family], getattr(message, family), time.monotonic(), math.inf)

    def run(self, calls: Sequence[CallGroup]) -> list[tuple[torch.Tensor, ...]]:
        """The answers of calls of one lane, run as one batch."""
        results = execute(self.device, calls[0].key, calls).results
        return [_tensors(call, result) for call, result in zip(calls, results, strict=True)]


def _tensors(call: CallGroup, result: Any) -> tuple[torch.Tensor, ...]:
    assert isinstance(result, list), result
    tensors = []
    for spec, data in zip(call.plan.outputs, result, strict=True):
        dtype = TORCH_DTYPES[spec.dtype]
        flat = torch.frombuffer(bytearray(data), dtype=dtype) if len(data) else torch.empty(0, dtype=dtype)
        tensors.append(flat.view(spec.shape))
    return tuple(tensors)


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and bytes."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if not left.numel():
        return True
    bits = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in (left, right)]
    return bool(torch.equal(*bits))
