"""What children are started with."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

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
