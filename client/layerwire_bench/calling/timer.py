"""A timer of an event loop that is right to some tens of microseconds.

It knows loops and clocks; nothing of what is due. asyncio's own timers are rounded up to whole milliseconds, by epoll's
timeout and by libuv's clock, and an open loop would find each millisecond in its latencies.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1  # TFD_TIMER_ABSTIME of <sys/timerfd.h>
_NANOSECONDS = 1_000_000_000


def timer(callback: Callable[[], None]) -> KernelTimer | LoopTimer:
    """A timer of the running loop, the most precise there is: it calls back once, at the time set last."""
    return KernelTimer(callback) if sys.platform == "linux" else LoopTimer(callback)


class KernelTimer:
    """By a timerfd of Linux, which the loop waits for as for a socket. Python has them itself from 3.13 on."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop.add_reader(self._fd, self._due)

    def set(self, when: float) -> None:
        """At this time of time.monotonic(), or at once if that is past; 0 would disarm a timerfd, 1 ns is long ago."""
        seconds, nanoseconds = divmod(max(int(when * _NANOSECONDS), 1), _NANOSECONDS)
        once = (ctypes.c_long * 4)(0, 0, seconds, nanoseconds)  # struct itimerspec: interval, value
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, once, None)

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _due(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew meanwhile
            return
        self._callback()


class LoopTimer:
    """By the loop, to a millisecond or so."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        self.close()
        self._handle = self._loop.call_at(when, self._callback)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
