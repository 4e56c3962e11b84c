"""Programs run by the worker's own parts in this process: a store, its catalog, the decoder, a device."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from layerwire.calls import Request, Requests
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import program_pb2
from layerwire_server.programs.check import ProgramLimits
from layerwire_server.programs.variant import Facts
from layerwire_server.storage import Store
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.request_kinds import KINDS
from layerwire_server.worker.running.device import open_device
from layerwire_server.worker.running.execution import execute
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.stored_tensors import StoredTensors
from layerwire_server.worker.weights.weights_cache import CacheMiss, WeightsCache, load_error
from tests.operators.local import _tensors, message_of

REQUESTS = Requests()


class Worker:
    """A worker without a loop; `close` it."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory)
        stored_tensors = StoredTensors(self.store)
        self._device = open_device("cpu", torch.get_num_threads())
        facts = Facts(ProgramLimits(1 << 26, 1 << 28, 2e11), "cpu")
        weights_cache = WeightsCache(stored_tensors, self._device.upload, 1 << 28)
        self.catalog = Catalog(self.store, stored_tensors, weights_cache, facts)
        self.decoder = CallDecoder(Plans(CallLimits(1 << 26, 2e11), "cpu"), self.catalog, deterministic=False)
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.close()

    def put(self, name: str, program: program_pb2.Program) -> None:
        """Keeps another version of a program without stored weights."""
        self.store.put_program(name, program.SerializeToString(deterministic=True), set())
        self._runner.run(self.catalog.refresh())

    def decode(self, request: Request | pb.Call) -> CallGroup:
        """The call, once all that it needs is there; raises what its caller would get."""
        return self._runner.run(self._call(message_of(request) if isinstance(request, Request) else request))

    async def _call(self, message: pb.Call) -> CallGroup:
        family = message.WhichOneof("request")
        assert family is not None
        while True:
            try:
                return self.decoder.decode(KINDS[family], getattr(message, family), time.monotonic(), math.inf)
            except CacheMiss as miss:
                error = await load_error(miss)
                if error is not None:
                    raise error from None

    def answers(self, calls: Sequence[CallGroup]) -> list[dict[str, torch.Tensor]]:
        """What calls of one lane give by name, run as one batch; raises the first one's error."""
        assert all(call.key == calls[0].key for call in calls)
        results = execute(self._device, calls[0].key, calls).results
        for result in results:
            if isinstance(result, Exception):
                raise result
        return [
            dict(zip(call.plan.operator.outputs, _tensors(call, result), strict=True))
            for call, result in zip(calls, results, strict=True)
        ]

    def run(self, program, inputs, **keywords) -> dict[str, torch.Tensor]:
        return self.answers([self.decode(REQUESTS.run(program, inputs, **keywords))])[0]

    def differentiate(self, program, inputs, gradients, wanted) -> dict[str, torch.Tensor]:
        request = REQUESTS.differentiate(lambda f: f.run(program, inputs), gradients, wanted)
        return self.answers([self.decode(request)])[0]
