"""What processes used, as Linux counts it: processor time in user code and in the kernel, and switches.

It knows /proc; neither servers nor loads.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from layerwire_bench.measuring.bottleneck import ticks

_TICKS = os.sysconf("SC_CLK_TCK")
_WAITS = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


class Usage(NamedTuple):
    """Since the process began, or between two readings.

    Attributes:
        user_seconds: processor time in its own code.
        system_seconds: processor time in the kernel for it.
        waits: times that one of its threads gave up a core to wait for something.
    """

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    waits: int = 0

    @property
    def seconds(self) -> float:
        """Both."""
        return self.user_seconds + self.system_seconds

    def since(self, before: Usage) -> Usage:
        """What was added."""
        user, system, waits = self
        return Usage(user - before.user_seconds, system - before.system_seconds, waits - before.waits)

    def plus(self, other: Usage) -> Usage:
        """Of two processes together."""
        user, system, waits = self
        return Usage(user + other.user_seconds, system + other.system_seconds, waits + other.waits)


def usage(pid: int) -> Usage:
    """Of a process with all its threads; nothing of one that is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return Usage()
    waits = 0
    for task in (folder / "task").iterdir():
        with contextlib.suppress(OSError):
            waits += int(_WAITS.findall((task / "status").read_text())[0])
    return Usage(int(fields[11]) / _TICKS, int(fields[12]) / _TICKS, waits)


def descendants(pid: int) -> list[int]:
    """The process and all that it or its children started, and that still run."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return [pid, *(further for child in children for further in descendants(child))]


def role(pid: int) -> str:
    """What a process of `layerwire serve` is: gateway, worker, supervisor; of another one, its program's name."""
    words = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    ours = next((word.rpartition(".")[2] for word in words if word.startswith("layerwire_server.")), None)
    if ours is not None:
        return ours
    return "supervisor" if "layerwire.cli" in words else Path(words[0]).name


def by_role(pids: Iterable[int]) -> dict[str, Usage]:
    """Of several processes, those of a role together."""
    usages: dict[str, Usage] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            name = role(pid)
            usages[name] = usages.get(name, Usage()).plus(usage(pid))
    return usages


def growth(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, Usage]:
    """What each role used between."""
    return {name: now.since(before.get(name, Usage())) for name, now in after.items()}


class Neighbours:
    """What others use of the machine's cores while this process and all that it started are measured."""

    def __init__(self) -> None:
        self._before, self._own_seconds = ticks(), _own_seconds()

    def ratio(self) -> float | None:
        """Their share of all cores since the beginning; None where the system doesn't tell."""
        before, after = self._before, ticks()
        if before is None or after is None or after.total <= before.total:
            return None
        own = (_own_seconds() - self._own_seconds) * _TICKS
        return max(after.busy - before.busy - own, 0.0) / (after.total - before.total)


def _own_seconds() -> float:
    """Processor time of this process, of what it started and still runs, and of what ended."""
    times = os.times()
    live = sum(usage(pid).seconds for pid in descendants(os.getpid()))
    return live + times.children_user + times.children_system
