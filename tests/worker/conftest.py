"""A worker's loop in this process, on a device whose batches the test can hold, count and break."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import operators_pb2
from layerwire.wire import arrays
from layerwire_server.link import Flag, Frame, Kind, Link
from layerwire_server.metrics import Metrics
from layerwire_server.programs.check import ProgramLimits
from layerwire_server.programs.variant import Facts
from layerwire_server.storage import Store
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.lanes.lane import Limits
from layerwire_server.worker.lanes.lanes import Lanes
from layerwire_server.worker.loop import WorkerLoop
from layerwire_server.worker.measures import Measures
from layerwire_server.worker.plan import CallLimits, LaneKey, Plans
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.running import execution
from layerwire_server.worker.running.device import CpuDevice, Device
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.stored_tensors import StoredTensors
from layerwire_server.worker.weights.weights_cache import WeightsCache
from tests.worker.groups import answers_of

MAX_ANSWER_BYTES = 1 << 16
LIMITS = Limits(64, 1 << 20, 1e9, queue_calls=64, queue_bytes=1 << 20)


class HeldDevice(CpuDevice):
    """The CPU; a batch on its thread waits for the gate, and `fault` may break it."""

    inline = False

    def __init__(self) -> None:
        super().__init__(torch.get_num_threads())
        self.batches: list[int] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Callable[[Sequence[CallGroup]], None] = lambda calls: None

    def hold(self, calls: Sequence[CallGroup]) -> None:
        """Called before calls run as a batch."""
        self.batches.append(sum(call.count for call in calls))
        self.started.release()
        assert self.gate.wait(300)
        self.fault(calls)


class Gateway:
    """The gateway's end of a link: what it sends, and the answers by call id."""

    def __init__(self) -> None:
        self.link: Link
        self.answers: dict[int, pb.Answer] = {}
        self.groups: list[pb.AnswerGroup] = []
        self.unary: dict[int, Frame] = {}  # by number, frames whose answers are no StreamResponse
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.started: list[tuple[int, ...]] = []
        self._numbers = iter(range(1, 1 << 30))

    def on_connect(self, link: Link) -> None:
        """link.Receiver."""
        self.link = link

    def on_frame(self, link: Link, frame: Frame) -> None:
        """link.Receiver."""
        if frame.kind is Kind.ANSWERS and not frame.flags & Flag.ERROR and frame.frame not in self.unary:
            response = pb.StreamResponse.FromString(frame.payload)
            self.groups += response.groups
            for answer in [*response.answers, *itertools.chain(*map(answers_of, response.groups))]:
                assert answer.id not in self.answers, "no call is answered twice"
                self.answers[answer.id] = answer
        if frame.kind is Kind.STARTED:
            self.started.append(frame.ordinals)
        self.frames.put_nowait(frame)

    def on_disconnect(self, link: Link, error: Exception | None) -> None:
        """link.Receiver."""

    def send(self, calls: Sequence[pb.Call], *groups: pb.CallGroup, **fields: Any) -> int:
        """Sends calls as one frame and returns its number."""
        number = next(self._numbers)
        message = pb.StreamRequest(calls=pb.Calls(calls=calls, groups=groups)).SerializeToString()
        now = asyncio.get_running_loop().time()
        self.link.send(Frame(Kind.CALLS, number, message, stream=1, **({"arrived": now} | fields)))
        return number

    async def last(self, number: int) -> Frame:
        """The last answer to a frame."""
        while True:
            frame = await asyncio.wait_for(self.frames.get(), 20)
            if frame.frame == number and frame.flags & Flag.LAST:
                return frame

    async def answer_sizes(self, number: int) -> list[int]:
        """Bytes of each frame of answers to a frame, the only one on its way."""
        sizes = []
        while True:
            answers = await self.kind(Kind.ANSWERS)
            assert answers.frame == number
            sizes.append(len(answers.payload))
            if answers.flags & Flag.LAST:
                return sizes

    async def kind(self, kind: Kind) -> Frame:
        """The next frame of a kind."""
        while True:
            frame = await asyncio.wait_for(self.frames.get(), 20)
            if frame.kind is kind:
                return frame

    def values(self, call_id: int) -> list[float]:
        """The answer to a relu."""
        answer = self.answers[call_id]
        assert answer.WhichOneof("result") == "activate", answer
        return arrays.to_numpy(answer.activate.output).ravel().tolist()  # type: ignore[no-any-return]


def relu(call_id: int, *values: float, **options: Any) -> pb.Call:
    """A call of relu."""
    request = pb.ActivateRequest(
        options=pb.CallOptions(**options),
        operator=operators_pb2.ActivateOperator(relu=operators_pb2.Relu()),
        input=arrays.from_numpy(np.array(values, np.float32)),
    )
    return pb.Call(id=call_id, activate=request)


class WorkerRig:
    """A worker's loop, its device, and a gateway's end of the link."""

    def __init__(
        self, device: HeldDevice, loop: WorkerLoop, gateway: Gateway, lanes: Lanes[CallGroup], metrics: Metrics
    ):
        self.device = device
        self.loop = loop
        self.gateway = gateway
        self.lanes = lanes
        self.metrics = metrics

    async def until_started(self) -> None:
        """Returns when the device has begun another batch."""
        assert await asyncio.to_thread(self.device.started.acquire, timeout=300)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[WorkerRig]:
    """A worker to try."""
    async with open_rig(tmp_path) as rig:
        yield rig


def worker_loop(device: Device, metrics: Metrics, folder: Path) -> tuple[WorkerLoop, Lanes[CallGroup]]:
    """A worker's loop on the running loop, with a store of its own, and its lanes."""
    store = Store(folder / "store")
    stored_tensors = StoredTensors(store)
    facts = Facts(ProgramLimits(1 << 20, 1 << 22, 1e9), "cpu")
    catalog = Catalog(store, stored_tensors, WeightsCache(stored_tensors, device.upload, 1 << 20), facts)
    lanes: Lanes[CallGroup] = Lanes(LIMITS)
    loop = WorkerLoop(
        0,
        device,
        lanes,
        CallDecoder(Plans(CallLimits(1 << 20, 1e9), "cpu"), catalog, deterministic=False),
        catalog,
        Measures(metrics),
        hello=b'{"index": 0}',
        hang_seconds=60.0,
        max_answer_bytes=MAX_ANSWER_BYTES,
        on_batch=lambda batch: None,
    )
    return loop, lanes


@asynccontextmanager
async def open_rig(tmp_path: Path) -> AsyncIterator[WorkerRig]:
    """A worker to try, on the running loop."""
    device, metrics = HeldDevice(), Metrics()
    worker, lanes = worker_loop(device, metrics, tmp_path)
    gateway = Gateway()
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: Link(worker, 1 << 24), sock=theirs)
    await loop.create_connection(lambda: Link(gateway, 1 << 24), sock=ours)
    assert (await gateway.kind(Kind.HELLO)).payload == b'{"index": 0}'
    real = execution.run_batch

    def run_batch(_: Device, key: LaneKey, calls: Sequence[CallGroup]) -> execution.Execution:
        device.hold(calls)
        return real(device, key, calls)

    with mock.patch.object(execution, "run_batch", run_batch):
        yield WorkerRig(device, worker, gateway, lanes, metrics)
    device.gate.set()
    gateway.link.close()
    await worker.idle()
    worker.close()
