"""Freed memory given back to the system once a process has gone idle: glibc keeps it otherwise, for ever.

It knows processor time and glibc; nothing of what the process does.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable

_SECONDS = 1.0  # looked at together
_AGAIN_SECONDS = (
    10.0  # clients leave, and free what was held for them, at idle times too; takes 1 ms if nothing is free
)
_IDLE_SHARE = 0.1  # of a processor; a child without calls takes 0.02


def _trim() -> None:
    with contextlib.suppress(AttributeError):  # other C libraries have none
        ctypes.CDLL(None).malloc_trim(0)


class Heap:
    """A process's heap.

    Args:
        now: the time.
        used_seconds: processor time that the process has used since it started.
        trim: gives back what is free.
    """

    def __init__(self, now: float, used_seconds: float, trim: Callable[[], None] = _trim) -> None:
        self._trim = trim
        self._since = now
        self._used_seconds = used_seconds
        self._was_busy = True
        self._trim_seconds = now

    def give_back_when_idle(self, now: float, used_seconds: float) -> None:
        """Trims in the first idle second after busy ones, and now and then while it stays idle.

        While it is busy, what is free is soon used again.
        """
        if now - self._since < _SECONDS:
            return
        idle = used_seconds - self._used_seconds < _IDLE_SHARE * (now - self._since)
        self._since, self._used_seconds = now, used_seconds
        if idle and (self._was_busy or now - self._trim_seconds >= _AGAIN_SECONDS):
            self._trim()
            self._trim_seconds = now
        self._was_busy = not idle
