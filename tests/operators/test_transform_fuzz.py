"""What the checks of transforms let pass, torch runs: thousands of calls, hostile ones among them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from layerwire_server.operators import TRANSFORMS


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_that_torch_refuses_passes(seed: int) -> None:
    command = [sys.executable, "-m", "tests.operators.transform_calls", str(seed), "4000"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    for name in TRANSFORMS:
        assert counts.get(f"{name} ran", 0) >= 30, counts
        assert counts.get(f"{name} refused", 0) >= 10, counts
