"""What an upload of weights costs, beside a copy of the same file on the same disk."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import layerwire
from tools.benchmarks.tables import table


def report(address: str, rounds: int, size_bytes: int) -> str:
    """The table: seconds and MiB/s of uploads with sha256 on both sides and fsync, and of copies with fsync."""
    seconds: dict[str, list[float]] = {"a copy of the file, fsync": [], "upload": []}
    with tempfile.TemporaryDirectory() as folder, layerwire.Client(address, timeout=120) as client:
        file = Path(folder) / "weights.safetensors"
        for number in range(rounds):  # with other elements each time, or the server would have them already
            array = np.random.default_rng(number).integers(0, 2**31, size_bytes // 4, np.int32)
            save_file({"w": array}, file)
            copy, upload = seconds.values()
            copy.append(_copy_seconds(file, Path(folder) / "copy"))
            start = time.perf_counter()
            client.upload(file)
            upload.append(time.perf_counter() - start)
    rows = [
        (name, f"{statistics.median(values):.2f}", f"{min(values):.2f}", f"{max(values):.2f}",
         f"{size_bytes / 2**20 / statistics.median(values):,.0f}")
        for name, values in seconds.items()
    ]  # fmt: skip
    heads = (f"weights of {size_bytes / 2**20:,.0f} MiB", "seconds, median", "least", "most", "MiB/s")
    return table(heads, rows)


def _copy_seconds(file: Path, to: Path) -> float:
    start = time.perf_counter()
    shutil.copyfile(file, to)
    with to.open("rb+") as copy:
        os.fsync(copy.fileno())
    seconds = time.perf_counter() - start
    to.unlink()
    return seconds
