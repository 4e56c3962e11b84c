"""The life of the server: starts gateways and workers side by side, replaces what dies, drains, and goes.

It imports neither gRPC nor torch, and knows of its children only what control.py lists.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from layerwire_server.child.control import Message
from layerwire_server.child.log import Log
from layerwire_server.config import Settings
from layerwire_server.metrics import Metrics
from layerwire_server.supervisor.exposition import Snapshots
from layerwire_server.supervisor.process import ChildSpec, Process

MODULES = {"gateway": "layerwire_server.gateway", "worker": "layerwire_server.worker"}
MAX_FAILED_STARTS = 5
_FIRST_DELAY_SECONDS = 0.1
_LAST_DELAY_SECONDS = 5.0
_STEADY_SECONDS = 30.0  # up for so long, its next death is a new story
_WATCH_SECONDS = 0.5
_SNAPSHOT_SECONDS = 0.5
_STOP_ROOM_SECONDS = 5.0
_START_GRACE_SECONDS = 0.5  # of a child that isn't ready: a worker that warms up takes its marks away


class CrashLoopError(Exception):
    """A child ends again and again before it does any work; the text is one sentence that names it."""


class Backoff:
    """How long to wait before a child is replaced, and when to give up."""

    def __init__(self) -> None:
        self._deaths = 0
        self.failed_starts = 0

    def after(self, up_seconds: float | None) -> float:
        """Seconds to wait after a death; `up_seconds` is None if it never was ready."""
        self.failed_starts = self.failed_starts + 1 if up_seconds is None else 0
        if up_seconds is not None and up_seconds >= _STEADY_SECONDS:
            self._deaths = 0
        self._deaths += 1
        return min(_FIRST_DELAY_SECONDS * 2.0 ** (self._deaths - 1), _LAST_DELAY_SECONDS)


class Keeper:
    """Keeps a process for one spec: starts it, replaces it when it dies or hangs, ends it."""

    def __init__(self, spec: ChildSpec, supervisor: Supervisor) -> None:
        self.spec = spec
        self.process: Process | None = None
        self.first_ready = asyncio.Event()
        self.snapshot_number = 0  # of the last request for a snapshot that was answered
        self._supervisor = supervisor
        self._stop = asyncio.Event()
        labels = {spec.role: str(spec.index)}
        self._restarts = supervisor.metrics.counter(f"layerwire_{spec.role}_restarts_total", **labels)
        self._up = (
            supervisor.metrics.gauge("layerwire_worker_up", worker=str(spec.index), device=spec.device)
            if spec.role == "worker"
            else None
        )

    async def keep(self) -> None:
        """Keeps a process running until `stop`.

        Raises:
            CrashLoopError: it ends MAX_FAILED_STARTS times in a row before it is ready.
        """
        backoff = Backoff()
        log = self._supervisor.log.bind(child=self.spec.name)
        while not self._stop.is_set():
            process = self.process = await self._supervisor.start(self.spec, self._on_message)
            log.info("child started", pid=process.pid, restarts=int(self._restarts.value))
            status = await process.wait()
            cause = process.death_cause(status)
            if self.spec.role == "worker":
                self._supervisor.tell_gateways("worker_died", worker=self.spec.index, cause=cause)
            self._supervisor.snapshots.retire(self.spec.name)
            self._set_up_gauge(0)
            if self._stop.is_set():
                log.info("child stopped", pid=process.pid, status=_status_name(status))
                return
            up_seconds = None if process.ready_seconds is None else time.monotonic() - process.ready_seconds
            delay_seconds = backoff.after(up_seconds)
            shown_seconds = None if up_seconds is None else round(up_seconds, 1)
            log.error("child died", pid=process.pid, status=_status_name(status), cause=cause.value,
                      up_seconds=shown_seconds, again_in_seconds=delay_seconds)  # fmt: skip
            if backoff.failed_starts >= MAX_FAILED_STARTS:
                raise CrashLoopError(f"{self.spec.name} ended {MAX_FAILED_STARTS} times in a row before it was ready")
            self._restarts.add()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), delay_seconds)

    def watch(self, now: float, hang_seconds: float) -> None:
        """Kills the process if it hangs."""
        if self.process is not None and self.process.hangs(now, hang_seconds):
            self._supervisor.log.error("child hangs and is killed", child=self.spec.name, pid=self.process.pid)
            self.process.kill()

    def replace(self, reason: str) -> None:
        """Kills a process that others found broken; one that isn't ready yet is its successor already."""
        if self.process is not None and self.process.ready.is_set():
            self._supervisor.log.error("child is replaced", child=self.spec.name, reason=reason)
            self.process.kill()

    async def stop(self, grace_seconds: float) -> None:
        """Lets the process finish, kills it when that takes too long, and has no other after it."""
        self._stop.set()
        if self.process is None:
            return
        is_starting = not self.process.ready.is_set()
        self.process.send("stop")
        grace_seconds = min(grace_seconds, _START_GRACE_SECONDS) if is_starting else grace_seconds
        try:
            await asyncio.wait_for(self.process.wait(), grace_seconds)
        except TimeoutError:
            if not is_starting:
                self._supervisor.log.warning("child doesn't stop and is killed", child=self.spec.name)
            self.process.kill()

    def kill(self) -> None:
        """Ends the process at once, and has no other after it."""
        self._stop.set()
        if self.process is not None:
            self.process.kill()

    def _on_message(self, message: Message) -> None:
        if message["kind"] == "ready":
            self.first_ready.set()
            self._set_up_gauge(1)
            if self.process is not None and self.process.ready_seconds is not None:
                seconds = round(self.process.ready_seconds - self.process.start_seconds, 1)
                self._supervisor.log.info("child is ready", child=self.spec.name, seconds=seconds)
        elif message["kind"] == "metrics":
            self._supervisor.snapshots.update(self.spec.name, message["snapshot"])
            self.snapshot_number = max(self.snapshot_number, message["request"])
            self._supervisor.on_snapshot()
        elif message["kind"] == "misbehaves":
            self._supervisor.replace_worker(message["worker"], message["reason"])

    def _set_up_gauge(self, value: int) -> None:
        if self._up is not None:
            self._up.set(value)


class Supervisor:
    """All children.

    Args:
        settings: with `listen` and `store` filled in.
        devices: one an entry for each device; there are settings.workers on each.
        runtime_directory: for sockets, mode 0700.
        modules: what to run for each role; tests have their own.
    """

    def __init__(
        self, settings: Settings, devices: list[str], runtime_directory: Path, log: Log,
        modules: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.log = log
        self.snapshots = Snapshots()
        self.metrics = Metrics()
        self._modules = modules or MODULES
        self._runtime_directory = runtime_directory
        self._requests = itertools.count(1)
        self._snapshot_event = asyncio.Event()
        places = [device for device in devices for _ in range(settings.workers)]
        self.workers = [Keeper(ChildSpec("worker", index, device), self) for index, device in enumerate(places)]
        self.gateways = [Keeper(ChildSpec("gateway", index), self) for index in range(settings.gateways)]
        self._keepers = [*self.workers, *self.gateways]

    async def start(self, spec: ChildSpec, handle: Callable[[Message], None]) -> Process:
        """Starts a process for a spec."""
        if spec.role == "worker":  # of its predecessor, so that gateways wait for the new one
            (self._runtime_directory / f"worker-{spec.index}.sock").unlink(missing_ok=True)
        values = {
            "settings": self.settings.to_json(),
            "workers": len(self.workers),
            "runtime_directory": str(self._runtime_directory),
        }
        return await Process.start(spec, self._modules[spec.role], values, handle)

    async def run(self, stop: asyncio.Event, stop_now: asyncio.Event, on_ready: Callable[[], None]) -> bool:
        """Keeps all children until `stop`, then drains; at once with `stop_now`. Whether all was finished.

        Raises:
            CrashLoopError: a child can't be started; the others are ended first.
        """
        keeps = [asyncio.create_task(keeper.keep()) for keeper in self._keepers]
        watch = asyncio.create_task(self._watch())
        ready = asyncio.create_task(self._report_ready(on_ready))
        ends = [asyncio.create_task(event.wait()) for event in (stop, stop_now)]
        try:
            await asyncio.wait([*keeps, watch, *ends], return_when=asyncio.FIRST_COMPLETED)
            broken = [task for task in (*keeps, watch) if task.done()]
            if broken:
                broken[0].result()  # raises
            ready.cancel()
            drain = asyncio.create_task(self._drain())
            await asyncio.wait([drain, ends[1]], return_when=asyncio.FIRST_COMPLETED)
            is_drained = drain.done()
            drain.cancel()
            return is_drained
        finally:
            for keeper in self._keepers:
                keeper.kill()
            await asyncio.wait(keeps, timeout=_STOP_ROOM_SECONDS)
            await _cancel([*keeps, watch, ready, *ends])

    def replace_worker(self, index: int, reason: str) -> None:
        """A gateway found a worker broken."""
        self.workers[index].replace(reason)

    def tell_gateways(self, kind: str, **values: Any) -> None:
        """Tells all gateways something of control.py's list."""
        for keeper in self.gateways:
            if keeper.process is not None:
                keeper.process.send(kind, **values)

    def on_snapshot(self) -> None:
        """A child's metrics came."""
        self._snapshot_event.set()
        self._snapshot_event = asyncio.Event()

    async def refresh(self) -> None:
        """Has every child send its metrics now; one that takes too long counts by what it sent last."""
        request = next(self._requests)
        live_keepers = [
            keeper for keeper in self._keepers if keeper.process is not None and keeper.process.ready.is_set()
        ]
        for keeper in live_keepers:
            assert keeper.process is not None
            keeper.process.send("snapshot", request=request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SNAPSHOT_SECONDS):
                while any(keeper.snapshot_number < request for keeper in live_keepers):
                    await self._snapshot_event.wait()

    async def _report_ready(self, on_ready: Callable[[], None]) -> None:
        for keeper in self._keepers:
            await keeper.first_ready.wait()
        on_ready()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = time.monotonic()
            for keeper in self._keepers:
                keeper.watch(now, self.settings.hang_seconds)

    async def _drain(self) -> None:
        settings = self.settings
        gateway_seconds = settings.lame_duck_seconds + settings.grace_seconds + _STOP_ROOM_SECONDS
        await asyncio.gather(*(keeper.stop(gateway_seconds) for keeper in self.gateways))
        await asyncio.gather(*(keeper.stop(_STOP_ROOM_SECONDS) for keeper in self.workers))


def _status_name(status: int) -> str:
    """An exit status for people: "SIGKILL", "1"."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return str(status)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
