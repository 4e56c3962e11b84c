"""What a child tells the supervisor of its counts: soon after it counted, and seldom else."""

from __future__ import annotations

import asyncio
import math

from layerwire_server.child import child
from layerwire_server.config import load
from tests.gateway.conftest import RecordingChild


async def test_counts_are_told_soon_though_the_next_snapshot_is_far(tmp_path, monkeypatch):
    monkeypatch.setattr(child, "METRICS_SECONDS", math.inf)
    start = {"role": "worker", "index": 0, "device": "cpu", "workers": 1, "settings": load({}).to_json()}
    this = RecordingChild(start | {"runtime_directory": str(tmp_path)})
    snapshots = asyncio.Queue()
    this.tell = lambda kind, **values: snapshots.put_nowait(values["snapshot"])
    reporting = asyncio.create_task(this._report())
    await asyncio.sleep(0)
    for count in (1.0, 2.0):
        this.metrics.counter("layerwire_retried_frames_total").add()
        snapshot = await asyncio.wait_for(snapshots.get(), 10)
        assert snapshot["layerwire_retried_frames_total"] == [[[], count]]
        assert snapshots.empty(), "told once"
    reporting.cancel()
