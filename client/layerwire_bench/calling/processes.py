"""The client processes of a run, seen from the process that planned it: started, commanded, heard, ended.

It knows processes and pipes; neither targets nor figures.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from layerwire_bench.calling import process
from layerwire_bench.calling.process import Begin, End, EndReport, Ready, StartFailure, WindowReport
from layerwire_bench.plan import Job
from layerwire_bench.result import Load

_HEAD_START_SECONDS = 0.05  # between a command and the time it names, so that all processes begin together
_LEAVE_SECONDS = 2.0
_START_SECONDS = 120.0
# gRPC's newer way to read a client's sockets has one thread more, between the socket and who waits for it: a call by
# the stream cost the client 271 us with it and 161 without, and 32 callers made 35,200 calls/s with, 42,600 without.
_EXPERIMENTS = "-event_engine_client"


class ClientProcessError(Exception):
    """A client process could not begin, or died.

    Attributes:
        code: gRPC status of the call that failed, "" where the request itself is at fault, "DIED" of a process.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Member(NamedTuple):
    process: Any
    commands: Connection
    reports: Connection


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal. Those born in here have it blocked, and learn of it by their pipe."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(job: Job, number: int, processes: int) -> _Member:
    """A client process; spawned, for neither gRPC nor CUDA survives a fork."""
    os.environ.setdefault("GRPC_EXPERIMENTS", _EXPERIMENTS)
    context = multiprocessing.get_context("spawn")
    their_commands, commands = context.Pipe(duplex=False)
    reports, their_reports = context.Pipe(duplex=False)
    arguments = their_commands, their_reports, job, number, processes
    member = context.Process(target=process.main, args=arguments, daemon=True, name=f"layerwire-bench-{number}")
    member.start()
    their_commands.close()
    their_reports.close()
    return _Member(member, commands, reports)


class ClientProcesses:
    """Client processes that do the same thing together, each its share.

    Raises:
        ClientProcessError: one can't begin.
    """

    def __init__(self, job: Job, processes: int) -> None:
        self._job = job
        self._members: list[_Member] = []
        try:
            with _without_interrupts():
                for number in range(processes):
                    self._members.append(_start(job, number, processes))
            self._await_ready()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._members)

    def begin(self, target: int, load: Load, window_seconds: float) -> float:
        """Puts a load on a target; returns when it begins, as a time of time.monotonic()."""
        start = time.monotonic() + _HEAD_START_SECONDS
        for member in self._members:
            member.commands.send(Begin(target, load, start, window_seconds))
        return start

    def reports(self, timeout_seconds: float) -> list[tuple[int, WindowReport | EndReport]]:
        """Reports that are there, of which process each; none if none came in time.

        Raises:
            ClientProcessError: a process died.
        """
        numbers = {member.reports: number for number, member in enumerate(self._members)}
        pipes = wait(list(numbers), timeout_seconds)
        return [(numbers[pipe], self._receive(numbers[pipe])) for pipe in pipes if isinstance(pipe, Connection)]

    def end(self) -> None:
        """Ends the load; each process sends an EndReport when its calls have ended."""
        for member in self._members:
            member.commands.send(End())

    def close(self) -> None:
        """Ends the processes."""
        for member in self._members:
            member.commands.close()
            member.reports.close()
        deadline = time.monotonic() + _LEAVE_SECONDS
        for member in self._members:
            member.process.join(max(deadline - time.monotonic(), 0.0))
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
        self._members = []

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        for number, member in enumerate(self._members):
            if not member.reports.poll(max(deadline - time.monotonic(), 0.0)):
                sentence = f"client process {number} did not start within {_START_SECONDS:g} s"
                raise ClientProcessError("DIED", sentence)
            first = self._receive(number)
            if isinstance(first, StartFailure):
                raise ClientProcessError(first.code, f"{self._job.targets[first.target]}: {first.message}")
            assert isinstance(first, Ready)

    def _receive(self, number: int) -> Any:
        member = self._members[number]
        try:
            return member.reports.recv()
        except (EOFError, OSError):
            member.process.join(_LEAVE_SECONDS)
            sentence = f"client process {number} died, exit code {member.process.exitcode}"
            raise ClientProcessError("DIED", sentence) from None
