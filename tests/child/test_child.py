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


async def test_a_snapshot_leaves_others_their_turn_and_names_what_changed_alone(tmp_path):
    """Many operators' values take milliseconds to look at."""
    start = {"role": "worker", "index": 0, "device": "cpu", "workers": 1, "settings": load({}).to_json()}
    this = RecordingChild(start | {"runtime_directory": str(tmp_path)})
    messages, turns = [], []
    this.tell = lambda kind, **values: messages.append(values)
    counters = [this.metrics.counter("layerwire_calls_total", operator=str(n), code="OK") for n in range(500)]
    push = asyncio.create_task(this.push_metrics(7))
    while not push.done():
        turns.append(len(messages))
        await asyncio.sleep(0)
    assert len(turns) > 5
    assert [message["request"] for message in messages] == [0] * (len(messages) - 1) + [7]
    labels = [labels[0] for message in messages for labels, _ in message["snapshot"].get("layerwire_calls_total", ())]
    assert sorted(labels) == sorted(str(n) for n in range(500))
    messages.clear()
    counters[3].add()
    await this.push_metrics(8)
    counts = [message["snapshot"].get("layerwire_calls_total") for message in messages]
    assert [count for count in counts if count] == [[[["3", "OK"], 1.0]]]
