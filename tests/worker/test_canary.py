"""First calls: every family is touched, and each call runs."""

from __future__ import annotations

import torch

from layerwire_server.operators import OPERATORS
from layerwire_server.worker.canary import first_requests
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.request_kinds import KINDS
from layerwire_server.worker.running.device import CpuDevice
from layerwire_server.worker.running.execution import execute
from tests.operators.local import NO_STORE


def decoder() -> CallDecoder:
    return CallDecoder(Plans(CallLimits(1 << 20, 1e9), "cpu"), NO_STORE, deterministic=False)


def test_first_calls_touch_every_family_and_run() -> None:
    assert {family for family, _ in first_requests()} == set(OPERATORS)
    device = CpuDevice(torch.get_num_threads())  # it is the process's number, which references of other tests go by
    for family, request in first_requests():
        call = decoder().decode(KINDS[family], request, 0.0, float("inf"))
        assert isinstance(execute(device, call.key, [call]).results[0], list), request
