"""Lets a call in or makes it wait: a bound on the unanswered calls and bytes of a client, first come first served.

It knows neither calls nor loops; any thread may enter and leave.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Admission:
    """A bound on calls and bytes in flight.

    Args:
        max_calls: calls that may be in at once.
        max_bytes: bytes that may be in at once; a call larger than that comes in alone.
    """

    def __init__(self, max_calls: int, max_bytes: int) -> None:
        self._max_calls = max_calls
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._calls = 0
        self._bytes = 0
        self._queue: deque[Ticket] = deque()

    def enter(self, nbytes: int) -> bool:
        """Comes in, if there is room and nobody waits."""
        with self._lock:
            if self._queue or not self._fits(nbytes):
                return False
            self._take(nbytes)
            return True

    def force(self, nbytes: int) -> None:
        """Comes in, room or not: for those who would keep others from leaving by waiting."""
        with self._lock:
            self._take(nbytes)

    def queue(self, nbytes: int, on_admission: Callable[[], None]) -> Ticket:
        """Waits in line; `on_admission` is called, by whatever thread makes room, when the place is taken."""
        ticket = Ticket(nbytes, on_admission)
        with self._lock:
            self._queue.append(ticket)
            tickets = self._admit()
        self._call_back(tickets)
        return ticket

    def give_up(self, ticket: Ticket) -> None:
        """Leaves the line; or, if the place was taken meanwhile, gives it back."""
        with self._lock:
            if ticket.is_admitted:
                self._calls -= 1
                self._bytes -= ticket.nbytes
            else:
                self._queue.remove(ticket)
            tickets = self._admit()
        self._call_back(tickets)

    def leave(self, calls: int, nbytes: int) -> None:
        """Makes room."""
        with self._lock:
            self._calls -= calls
            self._bytes -= nbytes
            tickets = self._admit() if self._queue else ()
        self._call_back(tickets)

    def _fits(self, nbytes: int) -> bool:
        return self._calls < self._max_calls and (self._bytes + nbytes <= self._max_bytes or not self._calls)

    def _take(self, nbytes: int) -> None:
        self._calls += 1
        self._bytes += nbytes

    def _admit(self) -> list[Ticket]:
        tickets = []
        while self._queue and self._fits(self._queue[0].nbytes):
            ticket = self._queue.popleft()
            ticket.is_admitted = True
            self._take(ticket.nbytes)
            tickets.append(ticket)
        return tickets

    @staticmethod
    def _call_back(tickets: list[Ticket] | tuple[()]) -> None:
        for ticket in tickets:
            ticket.on_admission()


class Ticket:
    """A place in the line."""

    __slots__ = ("is_admitted", "nbytes", "on_admission")

    def __init__(self, nbytes: int, on_admission: Callable[[], None]) -> None:
        self.nbytes = nbytes
        self.on_admission = on_admission
        self.is_admitted = False
