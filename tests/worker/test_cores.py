"""Cores that a process may use."""

import os

import pytest

from layerwire_server.worker import cores


@pytest.mark.parametrize(
    ("quota", "count"),
    [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("900000 100000", 4), ("max 100000", 4), ("", 4)],
    ids=["two", "one and a half", "half", "more than there are", "no limit", "nothing"],
)
def test_a_quota_counts_where_it_is_less(monkeypatch, tmp_path, quota, count):
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(cores, "_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    assert cores.available() == count


def test_without_control_groups_it_is_the_affinity(monkeypatch, tmp_path):
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "nowhere")
    assert cores.available() == len(os.sched_getaffinity(0))
