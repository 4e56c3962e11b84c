"""Completions: what gRPC has done, handed to the event loop's thread as it comes.

It knows gRPC's completion queue and how its sockets are watched; nothing of RPCs.

gRPC's core waits for all sockets of a process with one epoll instance, in the thread that asks the completion queue. So
the loop watches that instance as it does its own sockets, and asks the queue when there is something: no other thread
has to wake up, and then wake this one. Where that can't be, a thread asks and hands over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from grpc._cython import cygrpc  # type: ignore[attr-defined]

log = logging.getLogger(__name__)

Event: TypeAlias = Any  # cygrpc's
Tag: TypeAlias = Callable[[Event], object]

_MOST_EVENTS = 64  # in one go; then the loop's other work has its turn
_MOST_EMPTY = 4  # in one go
_AGAIN_SECONDS = 1e-3  # until the rest of them
_TICK_SECONDS = 0.05  # between looks for what only timers did, such as deadlines
_COUNT_SECONDS = 1.0  # between counts of the sockets
_MOST_SURPRISES = 5
_EPOLL_EVENTS = 100  # epoll1's MAX_EPOLL_EVENTS, which it learns of at once
_BLOCK_SECONDS = 5e-4  # a loop that was away for longer between two looks had nothing to do
_PAST = 0.0  # a deadline: don't wait


class Completions:
    """Calls the tags of events, which are functions, on the loop's thread.

    Attributes:
        queue: where operations have to be begun.
        since: since when, at most, the events that are handled now have waited for the loop, on the monotonic clock.
    """

    def __init__(self) -> None:
        self.queue = cygrpc.CompletionQueue()
        self.since = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._end: asyncio.Future[None]
        self._descriptor: int | None = None  # of gRPC's epoll instance
        self._sockets = 1
        self._surprises = 0  # ticks in a row that found what no socket had told of
        self._again: asyncio.TimerHandle | None = None
        self._will_look = self._is_looking = False
        self._look_end = 0.0
        self._turn_time = 0.0
        self._events: deque[Event] = deque()  # of the thread
        self._is_awake = False

    def start(self, address: str, port: int, *, alone: bool) -> None:
        """Hands events to the loop that runs now.

        Args:
            address: which gRPC listens at.
            port: what became of port 0.
            alone: nobody else in this process uses gRPC; they would take our events off the sockets.
        """
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.create_future()
        self._descriptor = _epoll_of(address, port) if alone else None
        if self._descriptor is None:
            self._start_thread()
        else:
            self._loop.add_reader(self._descriptor, self._look_at_sockets)
            self._tick()
            self._count()

    def expect(self) -> None:
        """There may be events already, by what was begun now: looks once all is done that the loop has at hand."""
        if not self._will_look and not self._is_looking and self._descriptor is not None:
            self._will_look = True
            self._loop.call_soon(self._look_again)

    async def stop(self) -> None:
        """Returns when all that was begun is done; nothing may be begun any more."""
        self.queue.shutdown()
        self.expect()
        await self._end
        self._unwatch()

    def _handle(self, event: Event) -> None:
        if event.completion_type == cygrpc.CompletionType.queue_shutdown:
            if not self._end.done():
                self._end.set_result(None)
            return
        try:
            event.tag(event)
        except Exception:
            log.exception("an event of an RPC can't be handled")

    # the loop asks

    def _look_at_sockets(self) -> None:
        if self._look(has_news=True):
            self._surprises = 0

    def _look(self, empty: int = 0, *, has_news: bool = False) -> bool:
        """Handles what is there; whether there was anything.

        Each time it is asked, gRPC handles one of the sockets' events that epoll has told it of, whether that completes
        something or not. So nothing is left for certain only when it completed nothing for as many times as there are
        sockets. `empty` is how often it has just been so, `has_news` whether epoll said that there is something.
        """
        now, turn_time = time.monotonic(), self._loop.time()
        self.since = turn_time if now - self._look_end > _BLOCK_SECONDS else self._turn_time
        self._turn_time = turn_time
        self._is_looking, found = True, False
        poll, timeout = self.queue.poll, cygrpc.CompletionType.queue_timeout
        for _ in range(_MOST_EVENTS):
            event = poll(_PAST)
            if event.completion_type != timeout:
                empty, found = 0, True
                self._handle(event)
                del event  # a call that is over would otherwise live until the next event
            else:
                empty += 1
                if empty >= self._sockets or empty % _MOST_EMPTY == 0:
                    break
        self._is_looking = False
        self._look_end = time.monotonic()
        if not empty:
            self.expect()
        elif (found or has_news or empty > _MOST_EMPTY) and empty < self._sockets and self._again is None:
            self._again = self._loop.call_later(_AGAIN_SECONDS, self._look_for_more, empty)
        return found

    def _look_again(self) -> None:
        self._will_look = False
        if self._descriptor is not None:
            self._look()

    def _look_for_more(self, empty: int) -> None:
        self._again = None
        if self._descriptor is not None:
            self._look(empty)

    def _tick(self) -> None:
        if self._descriptor is None:
            return
        self._surprises = self._surprises + 1 if self._look() else 0
        if self._surprises < _MOST_SURPRISES:
            self._loop.call_later(_TICK_SECONDS, self._tick)
        else:  # threads of gRPC's own take what there is off the sockets, by another version or setting of it
            log.info("gRPC's sockets can't be watched from the event loop; a thread waits for it")
            self._unwatch()
            self._start_thread()

    def _count(self) -> None:
        if self._descriptor is not None:
            self._sockets = min(len(_descriptors(self._descriptor)), _EPOLL_EVENTS)
            self._loop.call_later(_COUNT_SECONDS, self._count)

    def _unwatch(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = None

    # a thread asks

    def _start_thread(self) -> None:
        threading.Thread(target=self._wait, name="grpc", daemon=True).start()

    def _wait(self) -> None:
        is_over = False
        while not is_over:
            event = self.queue.poll(None)
            is_over = event.completion_type == cygrpc.CompletionType.queue_shutdown
            self._events.append(event)
            del event
            if not self._is_awake:
                self._is_awake = True
                self._turn_time = time.monotonic()
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to care
                    self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self.since = self._turn_time
        self._is_awake = False
        for _ in range(len(self._events)):
            self._handle(self._events.popleft())


def _epoll_of(address: str, port: int) -> int | None:
    """The epoll instance that watches the socket which listens at an address."""
    names = {address.removeprefix("unix:"), port}
    with contextlib.suppress(OSError):
        for entry in Path("/proc/self/fd").iterdir():
            number = int(entry.name)
            with contextlib.suppress(OSError):
                if str(entry.readlink()) == "anon_inode:[eventpoll]" and names & set(
                    map(_listens, _descriptors(number))
                ):
                    return number
    return None


def _descriptors(descriptor: int) -> list[int]:
    """The descriptors in an epoll instance."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("tfd:")]


def _listens(descriptor: int) -> str | int | None:
    """The port or path that a socket listens at; None if it is none that does."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as this:
            if not this.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            name = this.getsockname()
    except OSError:
        return None
    return name[1] if isinstance(name, tuple) else str(name)
