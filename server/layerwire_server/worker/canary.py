"""Calls with known answers: the canary that health goes by, and first calls, which load what torch loads lazily.

It knows calls and devices; nothing of lanes or frames.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from layerwire.errors import LayerwireError
from layerwire.v1 import layerwire_pb2, operators_pb2, tensor_pb2
from layerwire.wire import arrays
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.request_kinds import KINDS
from layerwire_server.worker.running.device import Device
from layerwire_server.worker.running.execution import DeviceLostError, execute

log = logging.getLogger(__name__)


def _tensor(values: object, dtype: str = "float32") -> tensor_pb2.Tensor:
    return arrays.from_numpy(np.array(values, dtype=dtype))


def _canary_request() -> layerwire_pb2.LinearRequest:
    """[1, 2, 3] times the 3x4 matrix with rows 1..4 is [6, 12, 18, 24]."""
    return layerwire_pb2.LinearRequest(
        operator=operators_pb2.LinearOperator(linear=operators_pb2.Linear()),
        input=_tensor([[1, 2, 3]]),
        weight=_tensor([[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4]]),
    )


_ANSWER = np.array([6, 12, 18, 24], dtype=np.float32).tobytes()


class Canary:
    """A call whose answer is known."""

    def __init__(self, device: Device, decoder: CallDecoder) -> None:
        self._device = device
        self._call = decoder.decode(KINDS["linear"], _canary_request(), time.monotonic(), float("inf"))

    def passes(self) -> bool:
        """Whether the device gives the known answer."""
        call = self._call
        try:
            (result,) = execute(self._device, call.key, [call]).results
        except DeviceLostError:
            log.exception("the canary call lost the device")
            return False
        if isinstance(result, LayerwireError):
            return False
        return bytes(result[0]) == _ANSWER


def first_requests() -> list[tuple[str, Any]]:
    """A request of each family, and of each kind that loads something at first use, with the family's name."""
    image, channel = _tensor(np.zeros((1, 1, 4, 4))), _tensor([1])
    pool = operators_pb2.PoolOperator(
        max_pool=operators_pb2.MaxPool(spatial_dims=2, kernel_size=[2], return_indices=True)
    )
    power = operators_pb2.PoolOperator(lp_pool=operators_pb2.LpPool(spatial_dims=2, norm_type=2, kernel_size=[2]))
    unpool = operators_pb2.UnpoolOperator(max_unpool=operators_pb2.MaxUnpool(spatial_dims=2, kernel_size=[2]))
    conv = operators_pb2.ConvolveOperator(conv=operators_pb2.Conv(spatial_dims=2))
    batch_norm = operators_pb2.NormalizeOperator(batch_norm=operators_pb2.BatchNorm())
    group_norm = operators_pb2.NormalizeOperator(group_norm=operators_pb2.GroupNorm(num_groups=1))
    relu = operators_pb2.ActivateOperator(relu=operators_pb2.Relu())
    corners, positions = _tensor(np.zeros((1, 1, 2, 2))), _tensor([[[[0, 2], [8, 10]]]], "int64")
    return [
        ("pool", layerwire_pb2.PoolRequest(operator=pool, input=image)),
        ("pool", layerwire_pb2.PoolRequest(operator=power, input=image)),
        ("unpool", layerwire_pb2.UnpoolRequest(operator=unpool, input=corners, indices=positions)),
        ("linear", _canary_request()),
        ("activate", layerwire_pb2.ActivateRequest(operator=relu, input=image)),
        ("convolve", layerwire_pb2.ConvolveRequest(operator=conv, input=image, weight=_tensor(np.zeros((1, 1, 3, 3))))),
        (
            "normalize",
            layerwire_pb2.NormalizeRequest(
                operator=batch_norm, input=image, running_mean=channel, running_var=channel, weight=channel
            ),
        ),
        ("normalize", layerwire_pb2.NormalizeRequest(operator=group_norm, input=image)),
    ]


def run_first_calls(device: Device, decoder: CallDecoder) -> None:
    """Runs first calls, which load what torch loads at first use: max_unpool2d alone imports 487 modules."""
    for family, request in first_requests():
        call = decoder.decode(KINDS[family], request, time.monotonic(), float("inf"))
        execute(device, call.key, [call])
