"""`layerwire bench` as a process, quick."""

from __future__ import annotations

import subprocess
import sys

from layerwire_bench.report import as_json

BENCH = [sys.executable, "-m", "layerwire.cli", "bench"]
QUICK = ["--window", "100ms", "--warmup", "100ms", "--max-windows", "3"]
UNCHECKED = ["--verify", "off"]
RELU = ["relu", "--shape", "1,10"]


def bench(*words, quick=True, **options):
    command = [*BENCH, *map(str, words), *(QUICK if quick else [])]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, **options)


def measured(ended):
    assert ended.returncode == 0, ended.stderr
    return as_json.from_json(ended.stdout)
