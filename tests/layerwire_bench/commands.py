"""`layerwire bench`, quick: in this process where its result is what counts, as a process where signals are."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import NamedTuple

from click.testing import CliRunner

from layerwire.cli import main
from layerwire_bench.report import files
from layerwire_bench.result import Run
from tests.served import PATIENCE_SECONDS

BENCH = [sys.executable, "-m", "layerwire.cli", "bench"]
QUICK = ["--window", "100ms", "--warmup", "100ms", "--max-windows", "3"]
UNCHECKED = ["--verify", "off"]
RELU = ["relu", "--shape", "1,10"]


class Ended(NamedTuple):
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def bench(*words: object, quick: bool = True) -> Ended:
    """The command in this process; its client processes are real."""
    command = ["bench", *map(str, words), *(QUICK if quick else [])]
    before = signal.getsignal(signal.SIGTERM)
    try:
        result = CliRunner(catch_exceptions=False).invoke(main, command)
    finally:
        signal.signal(signal.SIGTERM, before)
    return Ended(result.exit_code, result.stdout, result.stderr)


def bench_process(*words: object) -> Ended:
    """The command as users have it."""
    command = [*BENCH, *map(str, words), *QUICK]
    process = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    return Ended(process.returncode, process.stdout, process.stderr)


def measured(ended: Ended) -> Run:
    """The run on standard output."""
    assert ended.returncode == 0, ended.stderr
    return files.from_json(ended.stdout)
