"""What a process uses: memory, processor time, file descriptors. From /proc; where there is none, nothing is measured.

It knows nothing of what the process does.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from layerwire_server.metrics import Metrics

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc/self")


def measure(metrics: Metrics, process: str) -> None:
    """Brings this process's own figures up to date."""
    metrics.counter("layerwire_process_cpu_seconds_total", process=process).value = time.process_time()
    try:
        with os.scandir(_PROC / "fd") as entries:  # paths of a thousand would take a millisecond
            descriptors = sum(1 for _ in entries)
    except OSError:
        return
    metrics.gauge("layerwire_process_resident_memory_bytes", process=process).set(resident_bytes())
    metrics.gauge("layerwire_process_open_fds", process=process).set(descriptors)


def resident_bytes() -> int:
    """Memory that this process has now; 0 where that can't be known."""
    try:
        return int((_PROC / "statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def age_seconds() -> float:
    """How long ago this process was started; 0 where that can't be known."""
    try:
        after_name = (_PROC / "stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(after_name[19]) / _TICKS
    except (OSError, AttributeError):
        return 0.0
