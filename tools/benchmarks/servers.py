"""The servers that are compared, each a process of its own on free ports."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

BARE = ("tools.benchmarks.bare",)
LAYERWIRE = (
    "layerwire.cli", "serve", "--device", "cpu", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
    "--log-level", "warning",
)  # fmt: skip


class Addresses(NamedTuple):
    """host:port of each."""

    bare: str
    layerwire: str
    metrics: str


@contextlib.contextmanager
def both() -> Iterator[Addresses]:
    """Both servers, while they run."""
    with server(*BARE) as (bare, _), server(*LAYERWIRE) as (ours, metrics):
        yield Addresses(bare, ours, metrics)


@contextlib.contextmanager
def server(*command: str) -> Iterator[tuple[str, str]]:
    """A server's address, and that of its metrics, while it runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        found = re.search(r"ready on ([\d.]+:\d+)(?:.*metrics on ([\d.]+:\d+))?", ready)
        if found is None:
            raise RuntimeError(f"{' '.join(command)} did not start: {ready!r}")
        yield found[1], found[2] or ""
    finally:
        process.terminate()
        process.wait(30)
