"""What gateways and workers share as children of the supervisor: start-up data, log, signs of life, metrics, the end.

It knows neither gRPC nor torch, nor what a child does between its start and its end.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from layerwire_server.child import control, heap, log, process_stats
from layerwire_server.child.control import DeathCause
from layerwire_server.config import Settings
from layerwire_server.metrics import Metrics

BEAT_SECONDS = 0.5
METRICS_SECONDS = 1.0  # between snapshots while nothing is counted
COUNTS_SECONDS = 0.1  # while something is: what a child has counted since is lost if it is killed
# How long a thread that computes may keep Python's lock from the loop beside it, and the loop from it. By default 5 ms:
# a batch of six torch calls beside a busy loop took 24 ms (median of medians), with this 9; with 1e-4 no less.
_SWITCH_SECONDS = 5e-4
_COUNTING_SHARE = 0.005  # of a child's time that snapshots may take: with sixty operators one takes a millisecond


class Child:
    """A child process, as its `run` sees it.

    Attributes:
        role: "gateway" or "worker".
        index: its number among its kind, from 0.
        device: a worker's device in torch's notation; "" for a gateway.
        workers: how many workers there are; worker i listens on `worker_path(i)`.
        settings: the server's settings; `store` and `listen` are filled in.
        runtime_directory: directory of the sockets, mode 0700.
        stop_event: set when the child is to finish what it has and return from `run`.
        before_snapshot: called before each snapshot of the metrics, to bring gauges up to date.
        on_worker_death: called in a gateway when the supervisor knows what a worker died of.
    """

    def __init__(self, start: control.Message) -> None:
        self.role: str = start["role"]
        self.index: int = start["index"]
        self.device: str = start["device"]
        self.workers: int = start["workers"]
        self.settings = Settings.from_json(start["settings"])
        self.runtime_directory = Path(start["runtime_directory"])
        self.metrics = Metrics()
        self.log = log.start(self.settings.log_level, self.settings.log_format, process=f"{self.role}-{self.index}")
        self.stop_event = asyncio.Event()
        self.before_snapshot: Callable[[], None] = lambda: None
        self.on_worker_death: Callable[[int, DeathCause], None] = lambda _, __: None
        self._control: control.Control | None = None
        self._pushes: set[asyncio.Task[None]] = set()  # the loop keeps none alive

    def worker_path(self, index: int) -> str:
        """Path of the unix socket that a worker listens on."""
        return str(self.runtime_directory / f"worker-{index}.sock")

    def ready(self, info: dict[str, Any] | None = None) -> None:
        """Tells the supervisor that this child does its work from now on."""
        heap.settle()
        self.tell("ready", info=info or {})

    def tell(self, kind: str, **values: Any) -> None:
        """Tells the supervisor something of control.py's list."""
        if self._control is not None:
            self._control.send(kind, **values)

    async def push_metrics(self, request: int = 0) -> None:
        """Sends the supervisor what has changed of all metrics; `before_snapshot` may bring gauges up to date first.

        Args:
            request: number of the request for a snapshot that this answers, 0 for none.
        """
        self._measure()
        await self._push_changes()
        self.tell("metrics", snapshot={}, request=request)

    async def live(self, end: socket.socket, run: Callable[[Child], Coroutine[Any, Any, None]]) -> None:
        """Runs `run` beside the conversation with the supervisor."""
        self._control = await control.Control.connect(end)
        tasks = [asyncio.create_task(work) for work in (self._obey(self._control), self._beat(), self._report())]
        try:
            await run(self)
            await self.push_metrics()
        finally:
            for task in tasks:
                task.cancel()

    async def _obey(self, conversation: control.Control) -> None:
        actions: dict[str, Callable[[control.Message], None]] = {
            "snapshot": self._on_snapshot,
            "stop": lambda _: self.stop_event.set(),
            "worker_died": lambda message: self.on_worker_death(message["worker"], DeathCause(message["cause"])),
        }
        await conversation.receive(lambda message: actions[message["kind"]](message))
        os._exit(1)  # the supervisor is gone: nobody restarts, drains or counts us any more

    def _on_snapshot(self, message: control.Message) -> None:
        push = asyncio.create_task(self.push_metrics(message["request"]))
        self._pushes.add(push)
        push.add_done_callback(self._pushes.discard)

    async def _beat(self) -> None:
        while True:
            self.tell("beat")
            await asyncio.sleep(BEAT_SECONDS)

    async def _report(self) -> None:
        last_seconds = time.monotonic()
        memory = heap.Heap(time.monotonic(), time.process_time())
        pause_seconds = COUNTS_SECONDS
        while True:
            await asyncio.sleep(pause_seconds)
            now = time.monotonic()
            if now - last_seconds >= METRICS_SECONDS:
                last_seconds = now
                self._measure()
                memory.collect_when_grown(process_stats.resident_bytes())
            seconds = await self._push_changes()
            memory.give_back_when_idle(now, time.process_time())
            pause_seconds = max(seconds / _COUNTING_SHARE, COUNTS_SECONDS)

    def _measure(self) -> None:
        self.before_snapshot()
        process_stats.measure(self.metrics, f"{self.role}-{self.index}")

    async def _push_changes(self) -> float:
        """Tells what has changed, with turns for others between its parts; how long that took without those."""
        seconds, start = 0.0, time.perf_counter()
        for part in self.metrics.changes():
            if part:
                self.tell("metrics", snapshot=part, request=0)
            seconds += time.perf_counter() - start
            await asyncio.sleep(0)
            start = time.perf_counter()
        return seconds


def _set_up_process() -> None:
    # A terminal's Ctrl-C and systemd's stop reach the whole group; only the supervisor may act on them, by draining.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_SECONDS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold callers' tensors
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # it has no build for every platform
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main(run: Callable[[Child], Coroutine[Any, Any, None]]) -> None:
    """The whole life of a child process: `python -m layerwire_server.worker FD`, FD being its end of the socket pair.

    Args:
        run: what the child does; it calls `child.ready` once, and returns some time after `child.stop_event` is set.
    """
    _set_up_process()
    end = socket.socket(fileno=int(sys.argv[1]))
    child = Child(control.read_line(end))
    try:
        with asyncio.Runner(loop_factory=_new_event_loop) as runner:
            runner.run(child.live(end, run))
    except Exception:
        child.log.exception("%s ended by an error", child.role)
        os._exit(1)
