"""A worker process: the cores that it may use."""

import os

import pytest

from layerwire_server.worker import __main__ as worker


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
