"""What an idle server costs: seconds from start to ready, and resident memory of each process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import sides


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _role(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next((word.rpartition(".")[2] for word in words if word.startswith("layerwire_server.")), "supervisor")


def measure() -> tuple[float, dict[str, float]]:
    """Seconds to ready, and MiB by process, of one start."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *sides.LAYERWIRE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    seconds = time.perf_counter() - start
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    memory = {_role(pid): _resident_mib(pid) for pid in (process.pid, *map(int, children))}
    process.terminate()
    process.communicate(timeout=30)
    return seconds, memory


def show(rounds: int) -> None:
    """Prints the medians of so many starts."""
    starts = [measure() for _ in range(rounds)]
    table = Table("", "median", "least", "most", title="idle server, one CPU worker")
    rows = {"seconds to ready": [seconds for seconds, _ in starts]}
    for role in starts[0][1]:
        rows[f"resident MiB, {role}"] = [memory[role] for _, memory in starts]
    rows["resident MiB, all"] = [sum(memory.values()) for _, memory in starts]
    for name, values in rows.items():
        table.add_row(name, f"{statistics.median(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
    Console(width=110).print(table)
