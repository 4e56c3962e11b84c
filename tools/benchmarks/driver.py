"""Calls made by h2load, a client in C for HTTP/1.1 and HTTP/2, so that no server is slowed by Python at the other end.

It knows h2load's words and what it prints; neither servers nor what is in a body.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PROGRAM = "h2load"
_DONE = re.compile(r"requests: .* (\d+) done, (\d+) succeeded")
_DATA = re.compile(r"\((\d+)\) data")
START_SECONDS, END_SECONDS = 30.0, 3.0  # for one answer; for h2load to end after the time it was given
_LEAST_DATA = 0.97  # of the bytes that so many answers have; those under way at the ends are counted by one side only
GRPC = {"content-type": "application/grpc", "te": "trailers"}


class DriverError(Exception):
    """h2load isn't there or had no answers; the text is one sentence."""


@dataclass(frozen=True)
class Post:
    """A request that is made again and again.

    Attributes:
        url: with host and port.
        body: a file.
        http1: whether by HTTP/1.1; else by HTTP/2.
    """

    url: str
    body: Path
    http1: bool
    headers: Mapping[str, str] = field(default_factory=dict)


class Answers(NamedTuple):
    """What came back.

    Attributes:
        ends, seconds: of each answer, when it was there (time.time()) and how long it took.
        client_seconds: processor time of h2load.
    """

    ends: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    client_seconds: float


def grpc_body(message: bytes) -> bytes:
    """A message as gRPC has it in a body."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def available() -> bool:
    """Whether h2load is installed."""
    return shutil.which(PROGRAM) is not None


def answer_bytes(post: Post) -> int:
    """Bytes of one answer's body.

    Raises:
        DriverError: there was none.
    """
    output = _run(post, ["-n", "1"], START_SECONDS)
    if output is None:
        raise DriverError(f"{post.url}: no answer in {START_SECONDS:g} s")
    return _data_bytes(output, 0)


def drive(post: Post, callers: int, seconds: float, one_answer_bytes: int) -> Answers:
    """Answers to so many connections, each of which calls again when it has its answer.

    Raises:
        DriverError: there were none, or they were no successes, or of another size.
    """
    log = post.body.with_suffix(f".{os.getpid()}.log")
    before = os.times()
    words = ["-c", str(callers), "-D", f"{round(seconds * 1e3)}ms", f"--log-file={log}"]
    output = _run(post, words, seconds + END_SECONDS)
    after = os.times()
    if output is not None:
        _data_bytes(output, one_answer_bytes)
    columns = np.loadtxt(log, dtype=np.float64, ndmin=2)
    log.unlink()
    if not columns.size or not np.all(columns[:, 1] == http.client.OK):
        raise DriverError(f"{post.url}: {len(columns)} answers, not all with status 200")
    client = after.children_user + after.children_system - before.children_user - before.children_system
    durations = columns[:, 2] / 1e6
    return Answers(columns[:, 0] / 1e6 + durations, durations, client)


def _run(post: Post, words: list[str], seconds: float) -> str | None:
    """What h2load prints; None where it had to be ended, since by HTTP/1.1 it sometimes doesn't come to its end."""
    headers = [word for name, value in post.headers.items() for word in ("-H", f"{name}: {value}")]
    protocol = ["--h1"] if post.http1 else []
    command = [PROGRAM, *protocol, "-t", "1", *words, *headers, "-d", str(post.body), post.url]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    if run.returncode != 0:
        raise DriverError(f"{post.url}: h2load's exit status was {run.returncode}: {run.stderr.strip()[-200:]}")
    return run.stdout


def _data_bytes(output: str, one_answer_bytes: int) -> int:
    """Bytes of all bodies, which are fewer where answers were errors: those of gRPC have none."""
    counts, data = _DONE.search(output), _DATA.search(output)
    if counts is None or data is None or not int(counts[1]):
        raise DriverError(f"h2load had no answer: {output.strip()[-300:]}")
    done, successes, size = int(counts[1]), int(counts[2]), int(data[1])
    if successes < done or size < _LEAST_DATA * done * one_answer_bytes or not size:
        raise DriverError(f"h2load had {done} answers, {successes} with success, and {size} bytes in them")
    return size
