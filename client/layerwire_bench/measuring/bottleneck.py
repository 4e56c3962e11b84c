"""What the load tester itself used, and whether that is why the figures are what they are.

Pure but for /proc/stat: it knows processor times and lags; neither calls nor processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from layerwire_bench.result import Client, Latency

FULL = 0.9  # of a core, used by the one thread that an event loop has: what comes then waits for the client
CROWDED = 0.95  # of all cores of the machine
_LATE = 0.1  # of the p99 latency that is the client's own lateness, from which on it is worth a word
_LATE_SECONDS = 0.0005


@dataclass(frozen=True)
class Usage:
    """Of one process in one window: seconds of it, of its event loop's thread, and how late the loop was."""

    process: int
    cpu_seconds: float
    loop_cpu_seconds: float
    lags: tuple[float, ...]


class Ticks(NamedTuple):
    """Processor time of the whole machine since it started, in ticks of all cores."""

    busy: int
    total: int


def ticks() -> Ticks | None:
    """Those of now; None where the system doesn't tell."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    kinds = [int(word) for word in words[1:9]]  # user nice system idle iowait irq softirq steal
    return Ticks(sum(kinds) - kinds[3] - kinds[4], sum(kinds))


def busy_ratio(before: Ticks | None, after: Ticks | None) -> float | None:
    """The share of the cores that was used between."""
    if before is None or after is None or after.total <= before.total:
        return None
    return (after.busy - before.busy) / (after.total - before.total)


def client(
    usages: Sequence[Usage], seconds: float, calls: int, machine_busy_ratio: float | None, late: Latency | None,
    latency: Latency | None,
) -> Client:  # fmt: skip
    """What the client used in so many seconds, for so many calls; `late` is how late an open loop sent."""
    total = sum(usage.cpu_seconds for usage in usages)
    loops: dict[int, float] = {}
    for usage in usages:
        loops[usage.process] = loops.get(usage.process, 0.0) + usage.loop_cpu_seconds
    lags = [lag for usage in usages for lag in usage.lags]
    busiest = max(loops.values(), default=0.0) / seconds
    lag = float(np.percentile(lags, 99)) if lags else 0.0
    return Client(
        len(loops), total, busiest, total / calls if calls else None, lag, None if late is None else late.p99_seconds,
        machine_busy_ratio, _verdict(len(loops), busiest, machine_busy_ratio, late, latency),
    )  # fmt: skip


def _verdict(
    processes: int, busiest: float, machine: float | None, late: Latency | None, latency: Latency | None
) -> str | None:
    """Why the client set the figures; None where it didn't."""
    if busiest >= FULL:
        if machine is not None and machine >= CROWDED:
            more = "; no core of this machine is left for more: run the client on another"
        else:
            more = f"; try --processes {processes * 2}"
        one = "the client's event loop" if processes == 1 else "the busiest client process's event loop"
        return f"the client is the bottleneck: {one} used all of a core{more}"
    if late is not None and latency is not None and late.p99_seconds > max(_LATE * latency.p99_seconds, _LATE_SECONDS):
        return f"the client sent calls late, which is more than {_LATE:.0%} of their p99 latency"
    if machine is not None and machine >= CROWDED:
        return "all cores of this machine were in use: what the client took of them, a server here did not have"
    return None
