"""What the machine says of itself."""

from __future__ import annotations

import pytest

from layerwire_bench import machine


def test_the_machine_tells_what_it_is():
    found = machine.machine()
    assert found.cores >= 1
    assert found.memory_bytes > 1 << 28
    assert found.cpu
    assert {"python", "layerwire", "grpcio", "protobuf", "numpy", "torch"} <= found.versions.keys()


QUOTAS = {"half a core": ("50000 100000", 1), "three": ("300000 100000", 3), "none": ("max 100000", 8), "torn": ("", 8)}


@pytest.mark.parametrize(("text", "cores"), QUOTAS.values(), ids=QUOTAS)
def test_cores_are_those_that_may_be_used(text, cores, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text(text)
    (tmp_path / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert machine.cores() == cores
    assert machine.machine().memory_bytes == 1048576
