"""Frequent batches are remembered, kept small, and run again; what can't run any more is passed over."""

from __future__ import annotations

import asyncio
import errno
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from layerwire_server.storage import durable
from layerwire_server.worker import warmup
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.running import execution
from layerwire_server.worker.running.device import Device
from layerwire_server.worker.warmup import FrequentBatch, History, warm_up
from tests.operator_cases import Case, T, cases
from tests.operators.local import Local

RELU = Case("warm-relu", "relu", (T((3, 10)),))
POOL = Case("warm-pool", "max_pool2d", (T((2, 3, 8, 8)), 2))


@pytest.fixture
def local() -> Local:
    return Local()


def batch(local: Local, case: Case, calls: int) -> Batch[CallGroup]:
    some = [local.decode(case) for _ in range(calls)]
    return Batch(some[0].key, some, sum(call.rows for call in some), 1.0, "drained")


def history_of(local: Local, directory: Path, *batches: tuple[Case, int], index: int = 0) -> list[FrequentBatch]:
    history = History(directory, index, read_only=False)
    history.read()
    history.end_warmup()
    for case, calls in batches:
        history.count(batch(local, case, calls))
    content = history.unwritten()
    if content is not None:
        history.write(content)
    assert history.unwritten() is None
    return History(directory, 9, read_only=True).read()


def test_the_most_frequent_comes_first_and_batches_of_like_size_are_one(local, tmp_path):
    frequent = history_of(local, tmp_path, (POOL, 1), (RELU, 5), (RELU, 8), (RELU, 6))
    assert [(batch.family, batch.calls) for batch in frequent] == [("activate", 8), ("pool", 1)]


def test_a_group_counts_as_its_calls(local, tmp_path):
    history = History(tmp_path, 0, read_only=False)
    history.read()
    call = local.decode(RELU)
    call.count = 5
    history.count(Batch(call.key, [call], call.rows * 5, 1.0, "drained"))
    history.count(batch(local, RELU, 7))
    history.count(batch(local, POOL, 1))
    content = history.unwritten()
    assert content
    history.write(content)
    frequent = History(tmp_path, 9, read_only=True).read()
    assert [(each.family, each.calls) for each in frequent] == [("activate", 8), ("pool", 1)]


def test_what_was_frequent_runs_again(local, tmp_path, monkeypatch):
    frequent = history_of(local, tmp_path, (POOL, 1), (RELU, 5), (RELU, 5))
    batches: list[tuple[str, int]] = []

    def run_batch(device: Device, key: LaneKey, calls: Sequence[CallGroup]) -> execution.Execution:
        batches.append((calls[0].plan.operator.title, len(calls)))
        return real(device, key, calls)

    real = execution.run_batch
    monkeypatch.setattr(execution, "run_batch", run_batch)
    assert asyncio.run(warm_up(local.device, local.decoder, frequent)) == 2
    assert batches == [("relu", 8), ("max_pool2d", 1)]


@pytest.mark.parametrize(
    "case", [case for case in cases() if case.function != "activate"][::7], ids=lambda case: case.id
)
def test_every_operator_can_be_warmed(local, tmp_path, case):
    frequent = history_of(local, tmp_path, (case, 1))
    assert asyncio.run(warm_up(local.device, local.decoder, frequent)) == len(frequent) == 1


def test_workers_are_summed_and_counts_fade(local, tmp_path):
    history_of(local, tmp_path, *[(POOL, 1)] * 3, index=0)
    frequent = history_of(local, tmp_path, *[(RELU, 1)] * 4, (POOL, 1), index=1)
    assert [batch.family for batch in frequent] == ["pool", "activate"], "2 of 3 + 1 + 3 against 4"


def test_a_store_that_cannot_be_written_is_no_matter(local, tmp_path, caplog):
    history = History(tmp_path, 0, read_only=False)
    (tmp_path / "hot").touch()
    history.count(batch(local, RELU, 1))
    content = history.unwritten()
    assert content
    history.write(content)
    assert "can't be written down" in caplog.text


def test_a_read_only_store_is_not_written_to(local, tmp_path):
    history = History(tmp_path, 0, read_only=True)
    assert history.read() == []
    history.count(batch(local, RELU, 1))
    assert history.unwritten() is None
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_store_warms_up(local, tmp_path, monkeypatch):
    """One that was written to before it was mounted read-only; the tests may run as root, whom no mode stops."""
    history_of(local, tmp_path, (RELU, 1))
    monkeypatch.setattr(durable, "write_all", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    history = History(tmp_path, 0, read_only=True)
    assert [batch.family for batch in history.read()] == ["activate"]
    history.end_warmup()


def test_a_full_disk_does_not_keep_a_worker_from_starting(local, tmp_path, monkeypatch, caplog):
    history_of(local, tmp_path, (RELU, 1))
    monkeypatch.setattr(durable, "write_all", refuse)
    history = History(tmp_path, 0, read_only=False)
    assert [batch.family for batch in history.read()] == ["activate"]
    history.end_warmup()
    assert "won't be known again: [Errno 28]" in caplog.text


def refuse(path, *_, **__):
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"{}", b'{"format": 9, "hot": []}', b'{"format": 1, "hot": [[1, ["activate", "?", 1]]]}',
        b'{"format": 1, "hot": [[1, ["nothing", "", 1]]]}', b'{"format": 1, "hot": [[1, ["activate", "/////w==", 1]]]}',
        b'{"format": 1, "hot": 3}', b'{"format": 1, "hot": [[1, 2]]}',
    ],
)  # fmt: skip
def test_what_is_no_history_is_passed_over(local, tmp_path, content):
    (tmp_path / "hot").mkdir()
    (tmp_path / "hot" / "worker-0.json").write_bytes(content)
    frequent = History(tmp_path, 0, read_only=False).read()
    assert asyncio.run(warm_up(local.device, local.decoder, frequent)) == 0


def test_huge_tensors_of_a_forged_history_are_not_made(local):
    request = local_request(RELU)
    request.input.shape[0] = 2**40
    frequent = FrequentBatch("activate", request.SerializeToString(), 1)
    assert asyncio.run(warm_up(local.device, local.decoder, [frequent])) == 0


def test_a_worker_that_died_of_its_warm_up_starts_without(local, tmp_path, caplog):
    assert history_of(local, tmp_path, (RELU, 1))
    assert History(tmp_path, 0, read_only=False).read(), "and dies now: it never says `end_warmup`"
    second = History(tmp_path, 0, read_only=False)
    assert second.read() == []
    assert "died of its warm-up" in caplog.text
    assert History(tmp_path, 0, read_only=False).read() == []


def test_it_ends_when_its_time_is_up(local, tmp_path, monkeypatch):
    frequent = history_of(local, tmp_path, (POOL, 1), (RELU, 1))
    monkeypatch.setattr(warmup, "_BUDGET_SECONDS", -math.inf)
    assert asyncio.run(warm_up(local.device, local.decoder, frequent)) == 0


def local_request(case: Case) -> Any:
    """The request of a case without data."""
    from tests.operators.local import message_of, request_of

    message = message_of(request_of(case)).activate
    message.input.data = b""
    return message
