"""The files of the worker that one call of an operator passes: who follows a call reads these and no others."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Any

import pytest
import torch

from layerwire.v1 import layerwire_pb2 as pb
from layerwire_server import worker
from layerwire_server.link import Frame, Kind
from layerwire_server.metrics import Metrics
from layerwire_server.worker import dispatcher
from layerwire_server.worker.lanes.lanes import Lanes
from layerwire_server.worker.loop import WorkerLoop
from layerwire_server.worker.measures import Measures
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.running.device import CpuDevice
from tests.operators.local import NO_STORE
from tests.worker.conftest import LIMITS, MAX_ANSWER_BYTES, relu

FOLDER = f"{worker.__path__[0]}/"
PATH = {
    "loop.py",  # frame -> lane
    "reading/decoder.py",  # bytes -> requests -> Call
    "reading/parse_limits.py",
    "request_kinds/operator.py",  # parameters -> operator
    "request_kinds/kind.py",
    "request_kinds/inputs.py",  # tensors -> specs and contents
    "plan.py",
    "lanes/lanes.py",  # which calls run next
    "lanes/lane.py",
    "lanes/fair_shares.py",
    "dispatcher.py",  # lane -> device -> reply
    "running/execution.py",  # calls -> results
    "running/batch.py",
    "running/device.py",  # parts -> tensors
    "tensors.py",
    "answering/reply.py",  # result -> bytes
    "measures.py",
}


class Catalog:
    """One that nobody should ask for programs or weights."""

    store = NO_STORE


class AnswerLink:
    """A gateway's link, as far as answers go."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Frame] = asyncio.Queue()

    def send(self, frame: Frame, _: Iterable[bytes | memoryview] | None = None) -> None:
        """link.Link."""
        self.answers.put_nowait(frame)


async def test_a_call_passes_these_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "INLINE_SECONDS", math.inf)  # on a busy machine it would go to another thread
    device, catalog, link, files = CpuDevice(torch.get_num_threads()), Catalog(), AnswerLink(), set()
    loop: Any = WorkerLoop(
        0,
        device,
        Lanes(LIMITS),
        CallDecoder(Plans(CallLimits(1 << 20, 1e9), "cpu"), NO_STORE, deterministic=False),
        catalog,  # type: ignore[arg-type]
        Measures(Metrics()),
        hello=b"",
        hang_seconds=60.0,
        on_batch=lambda batch: None,
        max_answer_bytes=MAX_ANSWER_BYTES,
    )
    payload = pb.StreamRequest(calls=pb.Calls(calls=[relu(1, 1.0)])).SerializeToString()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(FOLDER):
            files.add(frame.f_code.co_filename.removeprefix(FOLDER))

    for profile in (None, note):  # the first makes the plan and the template
        sys.setprofile(profile)
        loop.on_frame(link, Frame(Kind.CALLS, 1, payload))
        await asyncio.wait_for(link.answers.get(), 20)
        await asyncio.sleep(0)
        sys.setprofile(None)
    loop.close()
    assert files == PATH
