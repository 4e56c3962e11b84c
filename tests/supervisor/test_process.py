"""What children are started with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from layerwire_server.supervisor import process

LARGE_BLOCKS = """
import resource, sys
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for mib in map(int, sys.argv[1:]):
    for _ in range(2):
        block = bytes(mib << 20); del block
    before = faults()
    for _ in range(10):
        block = bytearray(mib << 20); del block
    assert faults() - before < 100, f"{faults() - before} pages were got anew for blocks of {mib} MiB"
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")
def test_large_blocks_are_used_again() -> None:
    environment = process._ENVIRONMENT | os.environ
    subprocess.run([sys.executable, "-c", LARGE_BLOCKS, "8", "64"], env=environment, check=True, timeout=120)


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    tuple(map(int, (platform.libc_ver()[1] or "0").split("."))) < (2, 35)
    or not LARGE_PAGES.exists()
    or "[never]" in LARGE_PAGES.read_text(),
    reason="neither such a setting nor large pages",
)
def test_workers_blocks_that_are_new_each_time_are_of_large_pages() -> None:
    environment = process._ENVIRONMENT | process._WORKER_ENVIRONMENT | os.environ
    script = LARGE_BLOCKS.replace("< 100", "< 10 * 64 * 32")  # an eighth of the small pages that they are
    subprocess.run([sys.executable, "-c", script, "64"], env=environment, check=True, timeout=120)
