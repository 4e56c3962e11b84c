"""How many cores a process may use: in a container fewer than the machine has.

It knows Linux's affinity and control groups; nothing of what the cores are for.
"""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of control groups version 2, which a container sees as its own


def available() -> int:
    """At least one; a quota of 1.5 cores is 1, for a thread more would only wait for its turn."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(min(affine, int(quota) // int(period)), 1)
    except (OSError, ValueError, ZeroDivisionError):  # no control group, or "max"
        return affine
