"""Carries frames to workers and their answers back: the links, made and remade, tried by canary calls, and closed.

It knows sockets and time; nothing of gRPC, and of frames only those that concern the worker itself.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from layerwire_server.child.child import Child
from layerwire_server.child.control import DeathCause
from layerwire_server.gateway.router import Router
from layerwire_server.link import Flag, Frame, Kind, Link, LinkError

_RECONNECT_SECONDS = 0.02
_TICK_SECONDS = 0.1
_LATE_INTERVALS = 3
LINK_ROOM_BYTES = 1024**2  # what a link's payload may have beyond the largest message


class WorkerLink:
    """One worker as a gateway sees it. It is live when it is linked, has greeted, and its last canary was right."""

    def __init__(self, index: int, workers: Workers) -> None:
        self.index = index
        self.hello: dict[str, Any] = {}  # its last greeting; stays when it is gone
        self.live = False
        self.late = False  # its canary is out for too long: it may come back, but health shows it
        self._workers = workers
        self._link: Link | None = None
        self._end = asyncio.Event()
        self._has_greeted = False
        self._canary: tuple[int, float] | None = None  # number and time of the one that is out
        self._last_canary = 0.0
        self._requests: dict[int, asyncio.Future[Frame | None]] = {}  # frames for this worker alone, by number

    async def keep(self) -> None:
        """Links to the worker, again whenever the link ends, for ever."""
        path, limit = self._workers.child.worker_path(self.index), self._workers.max_payload_bytes
        count_copies = self._workers.child.metrics.counter("layerwire_copied_bytes_total", place="to_worker").add
        loop = asyncio.get_running_loop()
        while True:
            self._end.clear()
            try:
                await loop.create_unix_connection(lambda: Link(self, limit, count_copies), path)
            except OSError:  # it isn't up yet
                await asyncio.sleep(_RECONNECT_SECONDS)
            else:
                await self._end.wait()

    def send(self, frame: Frame) -> None:
        """Sends a frame; to a worker that is gone, nothing happens."""
        if self._link is not None:
            self._link.send(frame)

    def room(self, nbytes: int) -> memoryview | None:
        """Where a large payload may be written that is to be sent; None if there is no such room now."""
        return None if self._link is None else self._link.room(nbytes)

    async def names_changed(self) -> None:
        """Lets it read the store's names again; returns when it has adopted them, or is gone.

        That may take as long as it takes to load a large program. A worker that hangs is found by its canary.
        """
        await self.ask(Frame(Kind.NAMES_CHANGED))

    async def ask(self, frame: Frame) -> Frame | None:
        """Its answer to a frame that is for it alone and gets a number here; None if it is gone before."""
        number = self._workers.router.next_number()
        future: asyncio.Future[Frame | None] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        self.send(frame._replace(frame=number))
        try:
            return await future
        finally:
            self._requests.pop(number, None)

    @property
    def is_linked(self) -> bool:
        """Whether frames reach it."""
        return self._link is not None

    def try_canary(self, now: float) -> None:
        """Sends a canary call if it is time for one; a worker that leaves one unanswered for too long hangs."""
        settings = self._workers.child.settings
        if not self._has_greeted:
            return
        if self._canary is not None:
            self._set_late(now - self._canary[1] > _LATE_INTERVALS * settings.canary_interval_seconds)
            if now - self._canary[1] > settings.hang_seconds:
                self._count("late")
                self._distrust("its canary call hangs")
            elif self.late and self.live and self._workers.has_timely_worker():
                self._give_way()
        elif now - self._last_canary >= settings.canary_interval_seconds:
            self._canary = self._workers.router.next_number(), now
            self._last_canary = now
            self.send(Frame(Kind.CANARY, self._canary[0], arrived=now))

    def on_death(self, cause: DeathCause) -> None:
        """The supervisor knows what it died of; mostly before the link's end is noticed, or just after."""
        self._set_live(False, cause)
        self._workers.router.judge(self, cause, time.monotonic())

    # Receiver of the link

    def on_connect(self, link: Link) -> None:
        """link.py: the link is up; the worker's HELLO comes next."""
        self._link = link

    def on_frame(self, link: Link, frame: Frame) -> None:
        """link.py: a frame came."""
        kind = frame.kind
        if kind is Kind.ANSWERS or kind is Kind.STARTED:
            future = self._requests.get(frame.frame) if self._requests else None
            if future is None:
                self._workers.router.deliver(self, frame, time.monotonic())
            elif not future.done():
                future.set_result(frame)
        elif kind is Kind.CANARY_RESULT:
            self._take_canary(frame)
        elif kind is Kind.HELLO:
            self._greet(bytes(frame.payload))
        else:
            self._distrust(f"it sent a frame of kind {kind.name}")

    def on_disconnect(self, link: Link, error: Exception | None) -> None:
        """link.py: the link is gone."""
        if isinstance(error, LinkError):
            self._distrust(str(error))
        self._link = None
        self._has_greeted = False
        self._canary = None
        self.late = False
        self._last_canary = 0.0
        for future in self._requests.values():
            if not future.done():
                future.set_result(None)
        self._set_live(False)
        self._end.set()

    def _greet(self, payload: bytes) -> None:
        try:
            self.hello = dict(json.loads(payload))
        except ValueError:
            self._distrust("its greeting is no JSON")
            return
        self._has_greeted = True
        if self._link is not None:
            self._link.offer_memory()
        self.try_canary(time.monotonic())

    def _take_canary(self, frame: Frame) -> None:
        if self._canary is None or self._canary[0] != frame.frame:
            return
        self._canary = None
        self._set_late(False)
        wrong = bool(frame.flags & Flag.ERROR)
        self._count("wrong" if wrong else "right")
        if wrong:
            self._distrust("its canary call gave a wrong answer")
        else:
            self._set_live(True)

    def _distrust(self, reason: str) -> None:
        """Cuts it off, before another gets its frames; the supervisor replaces it."""
        if self._link is not None:
            self._link.close()
        self._workers.child.log.error("worker can't be trusted", worker=self.index, reason=reason)
        self._workers.child.tell("misbehaves", worker=self.index, reason=reason)
        self._set_live(False, DeathCause.HANG)

    def _give_way(self) -> None:
        """Cuts a late worker off, so that others run its calls; it is linked anew when it comes back."""
        self._workers.child.log.warning("a late worker's calls go to others", worker=self.index)
        if self._link is not None:
            self._link.close()
        self._set_live(False, DeathCause.OUTSIDE)

    def _set_live(self, live: bool, cause: DeathCause = DeathCause.UNKNOWN) -> None:
        if live != self.live:
            self.live = live
            now = time.monotonic()
            if live:
                self._workers.router.up(self, now)
            else:
                self._workers.router.down(self, now, cause)
            self._workers.on_change()

    def _set_late(self, late: bool) -> None:
        if late != self.late:
            self.late = late
            self._workers.on_change()

    def _count(self, result: str) -> None:
        self._workers.child.metrics.counter("layerwire_canary_total", worker=str(self.index), result=result).add()


class Workers:
    """All workers.

    Args:
        on_change: called when a worker comes up or goes down.
    """

    def __init__(self, child: Child, router: Router, on_change: Callable[[], None]) -> None:
        self.child = child
        self.router = router
        self.on_change = on_change
        self.max_payload_bytes = int(child.settings.max_message_bytes) + LINK_ROOM_BYTES
        self.links = [WorkerLink(index, self) for index in range(child.workers)]
        child.on_worker_death = self._on_death

    async def keep(self) -> None:
        """Keeps the links and lets canaries out until cancelled."""
        async with asyncio.TaskGroup() as group:
            for link in self.links:
                group.create_task(link.keep())
            while True:
                now = time.monotonic()
                self.router.expire(now)
                for link in self.links:
                    link.try_canary(now)
                await asyncio.sleep(_TICK_SECONDS)

    def has_timely_worker(self) -> bool:
        """Whether there is a worker that calls can go to in place of a late one."""
        return any(link.live and not link.late for link in self.links)

    def _on_death(self, index: int, cause: DeathCause) -> None:
        self.links[index].on_death(cause)

    async def ask_all(self, frame: Frame) -> list[Frame | None]:
        """What each live worker answers to a frame; None for one that is gone before."""
        return await asyncio.gather(*(link.ask(frame) for link in self.links if link.live))

    async def names_changed(self) -> None:
        """Lets every worker read the store's names again; those that link later read the store then."""
        await asyncio.gather(*(link.names_changed() for link in self.links if link.is_linked))
