"""What an idle server costs: seconds from start to ready, and resident memory of each process."""

from __future__ import annotations

import statistics
import subprocess
import time
from pathlib import Path

from tools.benchmarks.servers import LAYERWIRE, THIS
from tools.benchmarks.tables import table


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _role(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next((word.rpartition(".")[2] for word in words if word.startswith("layerwire_server.")), "supervisor")


def measure() -> tuple[float, dict[str, float]]:
    """Seconds to ready, and MiB by process, of one start."""
    start = time.perf_counter()
    process = subprocess.Popen(
        THIS.command(*LAYERWIRE), cwd=THIS.root, env=THIS.environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    seconds = time.perf_counter() - start
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    memory = {_role(pid): _resident_mib(pid) for pid in (process.pid, *map(int, children))}
    process.terminate()
    process.communicate(timeout=30)
    return seconds, memory


def report(rounds: int) -> str:
    """The table, of so many starts."""
    starts = [measure() for _ in range(rounds)]
    figures = {"seconds to ready": [seconds for seconds, _ in starts]}
    for role in starts[0][1]:
        figures[f"resident MiB, {role}"] = [memory[role] for _, memory in starts]
    figures["resident MiB, all"] = [sum(memory.values()) for _, memory in starts]
    rows = [
        (name, f"{statistics.median(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
        for name, values in figures.items()
    ]
    heads = ("idle server, one CPU worker", "median", "least", "most")
    return table(heads, rows) + "\n\nHeld against: under 600 MB, and ready within 6 s."
