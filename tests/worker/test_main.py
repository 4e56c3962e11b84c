"""A worker process: the cores that it may use, and its end while it warms up."""

import asyncio
import os
from types import SimpleNamespace

import pytest

from layerwire_server.worker import __main__ as worker
from layerwire_server.worker.trials.choices import Choices
from layerwire_server.worker.warmup import History


@pytest.mark.parametrize(
    ("quota", "count"),
    [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("900000 100000", 4), ("max 100000", 4), ("", 4)],
    ids=["two", "one and a half", "half", "more than there are", "no limit", "nothing"],
)
def test_a_quota_counts_where_it_is_less(monkeypatch, tmp_path, quota, count):
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(worker, "_CPU_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    assert worker.available_cores() == count


def test_without_control_groups_it_is_the_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "_CPU_QUOTA", tmp_path / "nowhere")
    assert worker.available_cores() == len(os.sched_getaffinity(0))


class ExitError(Exception):
    """The process ends."""


async def test_a_worker_that_is_stopped_while_it_warms_up_leaves_no_marks(monkeypatch, tmp_path):
    """Else the next would take it for one that died of its warm-up, or of a kernel that was on trial."""
    statuses = []

    def end(status):
        statuses.append(status)
        raise ExitError

    monkeypatch.setattr(os, "_exit", end)
    (tmp_path / "hot").mkdir()
    history, choices = History(tmp_path, 0, read_only=False), Choices(tmp_path, "here", 0, read_only=False)
    history.read()
    choices.begin_trial("key", "relu")
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".trial", ".warming"}
    process = SimpleNamespace(stop_event=asyncio.Event())
    device = SimpleNamespace(tuner=SimpleNamespace(choices=choices))
    process.stop_event.set()
    with pytest.raises(ExitError):
        await worker._unless_stopped(process, asyncio.Event().wait(), device, history)
    assert statuses == [0]
    assert not list(tmp_path.rglob("*.*"))


async def test_what_goes_wrong_in_the_warm_up_is_raised():
    async def broken():
        raise ExitError

    with pytest.raises(ExitError):
        await worker._unless_stopped(SimpleNamespace(stop_event=asyncio.Event()), broken(), None, None)
