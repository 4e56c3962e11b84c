"""What was hot is warmed up before a worker serves: after a restart, and after a worker's death."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import layerwire
from tests.served import PATIENCE_SECONDS, Server


def test_hot_calls_are_warmed_up_at_start_and_at_rebirth(start: Callable[..., Server], tmp_path: Path) -> None:
    def warm_up_lines() -> list[str]:
        return [line for line in (tmp_path / "log").read_text().splitlines() if "warmed up" in line]

    server = start("--store", str(tmp_path / "store"))
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as client:
        module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU()).eval()
        remote = client.deploy("hot", module, torch.ones(2, 1, 8, 8))
        image = np.ones((1, 1, 8, 8), np.float32)
        expected = remote(image)
        client.relu(image)
        assert warm_up_lines() == []
        assert server.stop() == 0
        server.start()
        np.testing.assert_allclose(client.run("hot", {"input": image})["output"], expected, atol=1e-6)
        assert len(warm_up_lines()) == 1
        assert "batches=3" in warm_up_lines()[0], "the deployment's example, the image, relu"
        (worker,) = server.pids("worker")
        os.kill(worker, signal.SIGKILL)
        np.testing.assert_allclose(client.run("hot", {"input": image})["output"], expected, atol=1e-6)
        assert len(warm_up_lines()) == 2
