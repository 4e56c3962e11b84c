"""The machine that the load tester runs on: processor, cores, memory, versions.

It knows /proc and installed packages; it imports none of them.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from importlib import metadata
from pathlib import Path

from layerwire_bench.result import Machine

_PACKAGES = ("layerwire", "grpcio", "protobuf", "numpy", "torch", "uvloop")
_CPUINFO, _OS_RELEASE, _CGROUP = Path("/proc/cpuinfo"), Path("/etc/os-release"), Path("/sys/fs/cgroup")


def machine() -> Machine:
    """This one, as far as it tells."""
    return Machine(
        host=platform.node(),
        cpu=_cpu(),
        cores=cores(),
        memory_bytes=_memory_bytes(),
        system=_system(),
        versions={"python": platform.python_version(), **versions(_PACKAGES)},
    )


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Of those that are installed."""
    there = {}
    for name in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            there[name] = metadata.version(name)
    return there


def cores() -> int:
    """Cores that this process may use: by its affinity, and by its control group's quota where that is less."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _text(_CGROUP / "cpu.max").partition(" ")
    if not quota.isdigit() or not period.strip().isdigit():
        return affine
    return max(1, min(affine, round(int(quota) / int(period))))


def _memory_bytes() -> int | None:
    """Of the machine, or what the control group may have of it where that is less."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None
    limit = _text(_CGROUP / "memory.max").strip()
    return min(physical, int(limit)) if limit.isdigit() else physical


def _cpu() -> str:
    """The model's name, where the processor tells it; else what kind it is."""
    match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", _text(_CPUINFO), re.MULTILINE)
    return " ".join(match[1].split()) if match else platform.processor() or platform.machine()


def _system() -> str:
    name = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(_OS_RELEASE), re.MULTILINE)
    kernel = f"{platform.system()} {platform.release()}"
    return f"{name[1]}, {kernel}" if name else kernel


def _text(path: Path) -> str:
    """What is in a file; nothing where it can't be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
