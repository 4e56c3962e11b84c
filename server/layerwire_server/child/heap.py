"""A child's memory: when garbage is collected, and when what is free goes back to the system.

It knows processor time, Python's collector and glibc; nothing of what the process does.

Left to itself Python looks at all objects whenever they have become a quarter more: 0.35 to 0.6 s of a worker in which
calls wait, again and again while their number grows. So what is there at the start is never looked at again, young
objects are looked at in small numbers, and all of them only when the process is idle, or has grown.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
from collections.abc import Callable

_SECONDS = 1.0  # looked at together
# Clients leave, and free what was held for them, at idle times too; to trim takes 1 ms if nothing is free.
_AGAIN_SECONDS = 10.0
_IDLE_SHARE = 0.1  # of a processor; a child without calls takes 0.02
_YOUNG_OBJECTS = 2_000  # beyond which they are looked at: 0.1 ms, and some times that where memory is cold
_YOUNG_COLLECTIONS = 10  # after which those that survived them are
_NEVER = 2**31 - 1
_GROWTH_BYTES, _GROWTH_SHARE = 128 * 1024**2, 0.25  # of memory since the last full collection


def settle() -> None:
    """To be called when the process is ready: what it has made so far stays for its life."""
    gc.collect(1)
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_COLLECTIONS, _NEVER)


def _trim() -> None:
    """Collects circles, such as broken streams with their tracebacks, and gives back what is free then."""
    gc.collect()
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
        self._most_bytes = 0.0  # that it may have before a collection is due

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

    def collect_when_grown(self, resident_bytes: int, collect: Callable[[], object] = gc.collect) -> None:
        """Collects garbage if the process has much more memory than after the last time, busy or not."""
        is_due = 0 < self._most_bytes < resident_bytes
        if is_due:
            collect()
        most_bytes = resident_bytes + max(_GROWTH_BYTES, _GROWTH_SHARE * resident_bytes)
        self._most_bytes = min(most_bytes, math.inf if is_due else self._most_bytes or math.inf)
