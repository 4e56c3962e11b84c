"""Clocks that stand still, for what takes over at a moment."""

from __future__ import annotations

import pytest

from layerwire_server.worker.trials import choices, tuner


class Clock:
    """Both clocks of a host, which stand still."""

    def __init__(self):
        self.now = 1e9

    def time(self):
        return self.now

    def monotonic(self):
        return self.now - 1e6

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(tuner, "time", clock)
    monkeypatch.setattr(choices, "time", clock)
    return clock
