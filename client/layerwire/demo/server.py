"""A server of one's own: started as `layerwire serve` on free ports, stopped by SIGTERM.

It knows that command's flags and its line; nothing of what is inside.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import NamedTuple

START_SECONDS = 180.0  # torch from a cold disk on a busy machine
STOP_SECONDS = 90.0  # its own grace is 30 s
TOLD_LINES = 5  # of the log, when it fails
READY = re.compile(r"ready on (127\.0\.0\.1:\d+).*metrics on (127\.0\.0\.1:\d+)")


class Addresses(NamedTuple):
    """Where a server is: gRPC, and /metrics."""

    address: str
    metrics: str


class ServerError(Exception):
    """The server didn't start, or didn't stop as it should; the text says what its log ends with."""


@contextmanager
def serve(log: Path, *flags: str) -> Iterator[Addresses]:
    """A server's addresses for as long as the context lasts.

    Args:
        log: file for what it writes to standard error.
        flags: further flags of `layerwire serve`.

    Raises:
        ServerError: it didn't start, or its exit status wasn't 0.
    """
    command = [sys.executable, "-m", "layerwire.cli", "serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    with log.open("wb") as errors:
        process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield _addresses(process, log)
        finally:
            status = _stop(process)
    if status != 0:
        raise ServerError(f"the server ended with exit status {status}; its log:\n{_tail(log)}")


def _addresses(process: subprocess.Popen[str], log: Path) -> Addresses:
    """The addresses in the line that the server prints when it is ready."""
    assert process.stdout is not None
    patience = Timer(START_SECONDS, process.kill)  # which ends the line that is waited for
    patience.start()
    line = process.stdout.readline()
    patience.cancel()
    match = READY.search(line)
    if match is None:
        raise ServerError(f"the server didn't start; its log:\n{_tail(log)}")
    return Addresses(*match.groups())


def _stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-TOLD_LINES:])
