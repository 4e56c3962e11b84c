"""One child process from its start to its end, as the supervisor holds it.

It knows how to start, listen to, stop and kill it; nothing of restarts or of other children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layerwire_server.child.control import Control, DeathCause, Message

_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
_LEAST_START_SECONDS = 120.0  # importing torch from a cold disk and waking a GPU are no hang
# What children get unless the user has set it. By default glibc has a heap for each thread, and keeps in each what was
# freed: after calls of 25.7 MB a gateway held 324 MB, with two heaps 194, and was no slower. What is freed stays with
# the process until heap.py gives it back: for the kernel to give 25 MB of zeroed pages takes longer than to copy them.
# Echoing 25.7 MB took a bare gRPC server 57 ms of processor time and 20,000 page faults, and so takes 20 ms and 1,500;
# a batch of a small network took a worker four times what its kernels do, since 4 MB and more were given back at once.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),  # larger blocks are the kernel's own mappings, each new again
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
# Of workers: torch's blocks are aligned, and glibc finds no place for one where one of the same size was, so that of
# outputs of 49 MiB eleven stayed, 539 MiB in all. A gateway's are not. Those that are new each time are made of the
# kernel's large pages, where it has some: 64 MiB are 32 page faults instead of 16,384.
_WORKER_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# gRPC's newer way to read sockets has threads of its own: 95 us and four wake-ups an RPC, where the way in which
# whoever waits for RPCs reads them takes 36 us and none.
_ENVIRONMENT["GRPC_EXPERIMENTS"] = "-event_engine_listener"
_ENVIRONMENT["GRPC_VERBOSITY"] = "ERROR"  # else whoever connects without TLS writes a line in the log


@dataclass(frozen=True)
class ChildSpec:
    """What a child is for."""

    role: str  # "gateway" or "worker"
    index: int
    device: str = ""

    @property
    def name(self) -> str:
        """Its name in logs and metrics."""
        return f"{self.role}-{self.index}"


def _memory_kills() -> int:
    """How many processes the kernel has killed for want of memory, on all of this machine."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


class Process:
    """A running child. Started by `start`; `wait` returns its exit status.

    Attributes:
        ready: set when it does its work.
        info: what it said of itself when it was ready.
        last_beat: when it gave its last sign of life, on the monotonic clock.
    """

    def __init__(self, spec: ChildSpec, popen: asyncio.subprocess.Process, control: Control) -> None:
        self.spec = spec
        self.ready = asyncio.Event()
        self.info: dict[str, Any] = {}
        self.start_seconds = self.last_beat = time.monotonic()
        self.ready_seconds: float | None = None
        self._popen = popen
        self._control = control
        self._listener: asyncio.Task[None] | None = None
        self._is_killed = False
        self._memory_kills = _memory_kills()

    @classmethod
    async def start(cls, spec: ChildSpec, module: str, values: Message, handle: Callable[[Message], None]) -> Process:
        """Starts `python -m module` and hears it.

        Args:
            spec: what it is for.
            module: what to run.
            values: start-up data beyond the spec; in its "runtime_directory" torch keeps what it compiles.
            handle: gets its messages, other than that it is ready or alive.
        """
        defaults = _ENVIRONMENT | {
            # Else a folder for each user stays in $TMPDIR for ever.
            "TORCHINDUCTOR_CACHE_DIR": str(Path(values["runtime_directory"]) / "torchinductor")
        }
        if spec.role == "worker":
            defaults |= _WORKER_ENVIRONMENT
        environment = defaults | os.environ
        # The user's experiments after ours, so that those that are meant count and others take nothing away.
        experiments = (_ENVIRONMENT["GRPC_EXPERIMENTS"], os.environ.get("GRPC_EXPERIMENTS", ""))
        environment["GRPC_EXPERIMENTS"] = ",".join(filter(None, experiments))
        ours, theirs = socket.socketpair()
        with theirs:
            popen = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                env=environment,
            )
        control = await Control.connect(ours)
        process = cls(spec, popen, control)
        control.send("start", **asdict(spec), **values)
        process._listener = asyncio.create_task(control.receive(lambda message: process._on_message(message, handle)))
        return process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def hangs(self, now: float, hang_seconds: float) -> bool:
        """Whether it gave no sign of life for too long."""
        limit = hang_seconds if self.ready.is_set() else max(hang_seconds, _LEAST_START_SECONDS)
        return now - self.last_beat > limit

    def send(self, kind: str, **values: Any) -> None:
        """Tells it something of control.py's list."""
        self._control.send(kind, **values)

    async def wait(self) -> int:
        """Waits for its end, and until all its messages are handled; the exit status, negative for a signal."""
        status = await self._popen.wait()
        if self._listener is not None:
            await self._listener
        return status

    def kill(self) -> None:
        """Ends it at once."""
        self._is_killed = True
        with contextlib.suppress(ProcessLookupError):
            self._popen.kill()

    def death_cause(self, status: int) -> DeathCause:
        """What it died of, by its exit status; known well only just after its death."""
        if self._is_killed:
            return DeathCause.HANG
        if status >= 0:
            return DeathCause.EXIT
        if -status in _FAULTS:
            return DeathCause.FAULT
        if -status == signal.SIGKILL and _memory_kills() != self._memory_kills:
            return DeathCause.MEMORY
        return DeathCause.OUTSIDE

    def _on_message(self, message: Message, handle: Callable[[Message], None]) -> None:
        self.last_beat = time.monotonic()
        if message["kind"] == "ready":
            self.info = message["info"]
            self.ready_seconds = time.monotonic()
            self.ready.set()
        handle(message)
