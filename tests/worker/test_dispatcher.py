"""When answers leave and what runs a batch, on a device that runs short batches on the loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from layerwire.v1 import layerwire_pb2 as pb
from layerwire_server.link import Flag, Frame, Kind
from layerwire_server.metrics import Metrics
from layerwire_server.worker import dispatcher
from layerwire_server.worker.running import device as devices
from layerwire_server.worker.running.device import CpuDevice
from tests.operator_cases import Case, T
from tests.operators.local import Local
from tests.worker.conftest import relu, worker_loop


class Log:
    """What a worker does, in order: "run" for each batch, and the ids that each frame of answers has."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entries: list[object] = []
        self._last = asyncio.Event()
        self._open_frames = 0
        real = devices.kernel
        monkeypatch.setattr(devices, "kernel", lambda *arguments: (self.entries.append("run"), real(*arguments))[1])
        self._loop, _ = worker_loop(CpuDevice(1), Metrics(), folder)

    async def of(self, *frames: tuple[int, list[pb.Call]]) -> list[object]:
        """Of frames that come together, each of a stream."""
        self._open_frames = len(frames)
        for number, (stream, calls) in enumerate(frames):
            message = pb.StreamRequest(calls=pb.Calls(calls=calls)).SerializeToString()
            now = asyncio.get_running_loop().time()
            self._loop.on_frame(self, Frame(Kind.CALLS, number, message, stream=stream, arrived=now))  # type: ignore[arg-type]
        await asyncio.wait_for(self._last.wait(), 20)
        self._loop.close()
        return self.entries

    def cork(self) -> None:
        """As link.Link."""

    def uncork(self) -> None:
        """As link.Link."""

    def send(self, frame: Frame, body: Iterable[bytes | memoryview]) -> None:
        """As link.Link."""
        self.entries.append([answer.id for answer in pb.StreamResponse.FromString(b"".join(body)).answers])
        self._open_frames -= bool(frame.flags & Flag.LAST)
        if not self._open_frames:
            self._last.set()


def softmax(call_id: int, width: int) -> pb.Call:
    """A call of a lane that those of other widths don't share."""
    call = relu(call_id, *[1.0] * width)
    call.activate.input.shape[:] = [1, width]
    call.activate.operator.softmax.dim = 1
    return call


@pytest.fixture
async def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """A worker's."""
    return Log(tmp_path, monkeypatch)


async def test_answers_of_a_frame_whose_calls_run_in_several_lanes_leave_together(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "GATHER_SECONDS", 60.0)
    assert await log.of((1, [softmax(i, 10 + i) for i in range(4)])) == [*["run"] * 4, [0, 1, 2, 3]]


async def test_frames_of_a_stream_are_answered_at_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "GATHER_SECONDS", 60.0)
    assert await log.of((1, [softmax(0, 10)]), (1, [softmax(1, 11)])) == ["run", "run", [0], [1]]


async def test_no_caller_waits_for_the_calls_of_others(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "GATHER_SECONDS", 60.0)
    entries = await log.of((1, [softmax(0, 10)]), (2, [softmax(1, 11)]))
    assert entries == ["run", [0], "run", [1]]


async def test_answers_wait_no_longer_than_their_time(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "GATHER_SECONDS", 0.0)
    assert await log.of((1, [softmax(i, 10 + i) for i in range(3)])) == ["run", [0], "run", [1], "run", [2]]


async def test_those_that_wait_leave_before_a_long_batch_begins(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "GATHER_SECONDS", 60.0)
    expectations = iter([0.0, 1.0])
    monkeypatch.setattr(dispatcher, "_expected_seconds", lambda _: next(expectations))
    assert await log.of((1, [softmax(0, 10), softmax(1, 11)])) == ["run", [0], "run", [1]]


@pytest.mark.parametrize(
    ("shape", "count", "threads"),
    [((1, 100), 3, 1), ((4, 100), 1, 1), ((1, 100), 1, 2), ((2000, 1000), 1, 2)],
    ids=["company", "several-rows", "a-lone-row-as-its-caller-would", "much-work"],
)
def test_batches_of_little_work_run_on_one_thread(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], count: int, threads: int
) -> None:
    numbers, real = [], devices.kernel
    monkeypatch.setattr(
        devices, "kernel", lambda *arguments: (numbers.append(torch.get_num_threads()), real(*arguments))[1]
    )
    local = Local(CpuDevice(2))
    local.run([local.decode(Case("rows", "softmax", (T(shape), 1))) for _ in range(count)])
    assert numbers == [threads]
    assert torch.get_num_threads() == 2


def test_deterministic_batches_run_on_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, real = [], devices.kernel
    monkeypatch.setattr(
        devices, "kernel", lambda *arguments: (numbers.append(torch.get_num_threads()), real(*arguments))[1]
    )
    local = Local(CpuDevice(2), deterministic=True)
    local.run([local.decode(Case("rows", "linear", (T((1, 8)), T((4, 8))))) for _ in range(2)])
    assert numbers == [2]
