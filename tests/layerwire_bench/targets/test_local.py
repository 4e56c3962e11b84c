"""The target without a server: calls run here, one after another, and each ends once."""

from __future__ import annotations

import numpy as np

from layerwire.calls import Requests
from layerwire_bench.answers import reference
from layerwire_bench.targets.local import LocalTarget
from tests.layerwire_bench.targets.calls import ENTRY, Calls, sample

X = np.ones((2, 6), np.float32)


async def test_local_calls_run_here_one_after_another(monkeypatch):
    ran = []

    def run():
        ran.append(len(ran))
        if len(ran) == 3:
            raise RuntimeError("no such kernel")
        return {"output": np.float32(len(ran))}

    monkeypatch.setattr(reference, "local_call", lambda sample: run)
    async with LocalTarget() as opened:
        prepared, calls = opened.prepare(sample(Requests().relu(X)), ENTRY), Calls(opened)
        calls.fire(prepared, 4)
        assert not ran
        ends = await calls.all()
        assert opened.outputs(prepared, ends[1].answer) == {"output": 2.0}
    assert [ended[1:] for ended in ends] == [("OK", "")] * 2 + [
        ("INTERNAL", "RuntimeError: no such kernel"),
        ("OK", ""),
    ]


async def test_closing_local_ends_what_was_called():
    opened = await LocalTarget().__aenter__()
    calls = Calls(opened)
    calls.fire(lambda: {"output": X}, 3)
    await opened.__aexit__()
    assert {ended.status for ended in calls.now()} == {"OK"}
