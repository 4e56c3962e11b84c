"""What is hot is remembered, kept small, and run again; what can't be any more is passed over."""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from layerwire_server.worker import warmup
from layerwire_server.worker.call import Call
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.running.device import CpuDevice, Ran
from layerwire_server.worker.warmup import Hot, Memory, warm
from tests.operator_cases import Case, T, cases
from tests.operators.local import Local

RELU = Case("warm-relu", "relu", (T((3, 10)),))
POOL = Case("warm-pool", "max_pool2d", (T((2, 3, 8, 8)), 2))


class WatchedDevice(CpuDevice):
    """The CPU; remembers what ran."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, int]] = []

    def run(self, key: LaneKey, calls: Sequence[Call]) -> Ran:
        """device.Device."""
        self.batches.append((calls[0].plan.operator.title, len(calls)))
        return super().run(key, calls)


@pytest.fixture
def local() -> Local:
    return Local(WatchedDevice())


def batch(local: Local, case: Case, calls: int) -> Batch[Call]:
    some = [local.decode(case) for _ in range(calls)]
    return Batch(some[0].key, some, sum(call.rows for call in some), 1.0, "drained")


def remembered(local: Local, directory: Path, *ran: tuple[Case, int], index: int = 0) -> list[Hot]:
    memory = Memory(directory, index, read_only=False)
    memory.recalled()
    memory.warmed()
    for case, calls in ran:
        memory.ran(batch(local, case, calls))
    content = memory.changed()
    if content is not None:
        memory.write(content)
    assert memory.changed() is None
    return Memory(directory, 9, read_only=True).recalled()


def test_the_hottest_comes_first_and_batches_of_like_size_are_one(local, tmp_path):
    hot = remembered(local, tmp_path, (POOL, 1), (RELU, 5), (RELU, 8), (RELU, 6))
    assert [(one.family, one.calls) for one in hot] == [("activate", 8), ("pool", 1)]


def test_what_was_hot_runs_again(local, tmp_path):
    hot = remembered(local, tmp_path, (POOL, 1), (RELU, 5), (RELU, 5))
    assert asyncio.run(warm(local.device, local.decoder, hot)) == 2
    assert local.device.batches == [("relu", 8), ("max_pool2d", 1)]


@pytest.mark.parametrize(
    "case", [case for case in cases() if case.function != "activate"][::7], ids=lambda case: case.id
)
def test_every_operator_can_be_warmed(local, tmp_path, case):
    hot = remembered(local, tmp_path, (case, 1))
    assert asyncio.run(warm(local.device, local.decoder, hot)) == len(hot) == 1


def test_workers_are_summed_and_counts_fade(local, tmp_path):
    remembered(local, tmp_path, *[(POOL, 1)] * 3, index=0)
    hot = remembered(local, tmp_path, *[(RELU, 1)] * 4, (POOL, 1), index=1)
    assert [one.family for one in hot] == ["pool", "activate"], "2 of 3 + 1 + 3 against 4"


def test_a_store_that_cannot_be_written_is_no_matter(local, tmp_path, caplog):
    memory = Memory(tmp_path, 0, read_only=False)
    (tmp_path / "hot").touch()
    memory.ran(batch(local, RELU, 1))
    content = memory.changed()
    assert content
    memory.write(content)
    assert "can't be written down" in caplog.text


def test_a_read_only_store_is_not_written_to(local, tmp_path):
    memory = Memory(tmp_path, 0, read_only=True)
    assert memory.recalled() == []
    memory.ran(batch(local, RELU, 1))
    assert memory.changed() is None
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_store_warms_up(local, tmp_path, monkeypatch):
    """One that was written to before it was mounted read-only; the tests may run as root, whom no mode stops."""
    remembered(local, tmp_path, (RELU, 1))
    monkeypatch.setattr(Path, "touch", refused_by_the_disk)
    monkeypatch.setattr(Path, "unlink", refused_by_the_disk)
    memory = Memory(tmp_path, 0, read_only=True)
    assert [one.family for one in memory.recalled()] == ["activate"]
    memory.warmed()


def test_a_full_disk_does_not_keep_a_worker_from_starting(local, tmp_path, monkeypatch, caplog):
    remembered(local, tmp_path, (RELU, 1))
    monkeypatch.setattr(Path, "touch", refused_by_the_disk)
    memory = Memory(tmp_path, 0, read_only=False)
    assert [one.family for one in memory.recalled()] == ["activate"]
    memory.warmed()
    assert "won't be known again: [Errno 28]" in caplog.text


def refused_by_the_disk(path, *_, **__):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"{}", b'{"format": 9, "hot": []}', b'{"format": 1, "hot": [[1, ["activate", "?", 1]]]}',
        b'{"format": 1, "hot": [[1, ["nothing", "", 1]]]}', b'{"format": 1, "hot": [[1, ["activate", "/////w==", 1]]]}',
        b'{"format": 1, "hot": 3}', b'{"format": 1, "hot": [[1, 2]]}',
    ],
)  # fmt: skip
def test_what_is_no_memory_is_passed_over(local, tmp_path, content):
    (tmp_path / "hot").mkdir()
    (tmp_path / "hot" / "worker-0.json").write_bytes(content)
    hot = Memory(tmp_path, 0, read_only=False).recalled()
    assert asyncio.run(warm(local.device, local.decoder, hot)) == 0


def test_huge_tensors_of_a_forged_memory_are_not_made(local):
    request = local_request(RELU)
    request.input.shape[0] = 2**40
    hot = Hot("activate", request.SerializeToString(), 1)
    assert asyncio.run(warm(local.device, local.decoder, [hot])) == 0


def test_a_worker_that_died_of_its_warm_up_starts_without(local, tmp_path, caplog):
    assert remembered(local, tmp_path, (RELU, 1))
    assert Memory(tmp_path, 0, read_only=False).recalled(), "and dies now: it never says `warmed`"
    again = Memory(tmp_path, 0, read_only=False)
    assert again.recalled() == []
    assert "died of its warm-up" in caplog.text
    assert Memory(tmp_path, 0, read_only=False).recalled() == []


def test_it_ends_when_its_time_is_up(local, tmp_path, monkeypatch):
    hot = remembered(local, tmp_path, (POOL, 1), (RELU, 1))
    monkeypatch.setattr(warmup, "_BUDGET_SECONDS", -math.inf)
    assert asyncio.run(warm(local.device, local.decoder, hot)) == 0


def local_request(case: Case) -> Any:
    """The request of a case without data."""
    from tests.operators.local import message_of, request_of

    message = message_of(request_of(case)).activate
    message.input.data = b""
    return message
