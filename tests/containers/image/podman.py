"""podman with images, containers and volumes below one folder of its own, apart from the machine's.

It knows which tools it takes; not what an image should be.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layerwire" / "image-check"
TOOLS = ("mmdebstrap", "podman", "runc", "slirp4netns")  # each in the Debian package of that name
_STORAGE = ("--root", CACHE / "images", "--runroot", CACHE / "run", "--storage-driver", "overlay")
# Debian's crun refuses machines that have both versions of cgroups, and there may be no systemd.
_ENGINE = ("podman", *_STORAGE, "--runtime", "runc", "--cgroup-manager", "cgroupfs")
_ENVIRONMENT = {**os.environ, "DISABLE_HC_SYSTEMD": "true"}
_LAST_CHARACTERS = 3000


def reason_to_skip() -> str:
    """One sentence about what this machine lacks; "" where nothing is missing."""
    if os.geteuid() != 0:
        return "image-check: needs root, for namespaces and mounts"
    packages = sorted(tool for tool in TOOLS if shutil.which(tool) is None)
    return f"image-check: needs the Debian packages {' '.join(packages)}" if packages else ""


MARKS = [
    pytest.mark.debian,
    pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip()),
    pytest.mark.timeout(1800),
]


class ToolError(Exception):
    """A command failed; the text has the command and the end of what it said."""


def run(*command: str | Path, timeout: float | None = None, errors_too: bool = False) -> str:
    """Standard output of a command, and standard error after it if wanted.

    Raises:
        ToolError: its exit status is not 0.
        TimeoutExpired: it takes longer than `timeout` seconds.
    """
    words = list(map(str, command))
    result = subprocess.run(words, capture_output=True, text=True, env=_ENVIRONMENT, timeout=timeout)
    if result.returncode != 0:
        output = (result.stderr + result.stdout)[-_LAST_CHARACTERS:]
        raise ToolError(f"{' '.join(words)}: exit status {result.returncode}\n{output}")
    return result.stdout + (result.stderr if errors_too else "")


def podman(*words: str | Path, **options: Any) -> str:
    """Standard output of `podman words...`; raises as `run` does."""
    return run(*_ENGINE, *words, **options).strip()


def follow(*words: str) -> subprocess.Popen[str]:
    """`podman words...` that goes on; its standard output can be read line by line."""
    command = list(map(str, (*_ENGINE, *words)))
    return subprocess.Popen(
        command, env=_ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )  # fmt: skip
