"""The work that waits or runs, in seconds, and who is admitted to it: calls with deadlines that they can meet.

It knows neither lanes nor devices. Time is an argument; standard library only.

Without this a queue under overload is as long as deadlines allow, so that every call that runs has hardly any time
left, and whatever else takes time makes all of them late: the device amounts at its capacity, and no answer is of use.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

_WAIT_SHARE = 0.5  # of the time that a call has left may go by before it runs: the rest is for all that isn't predicted
_SLOT_SECONDS = 1 / 16  # deadlines are counted by such
_SLOTS = 32  # beyond these, calls are thought to come after all others
_FARTHEST_SECONDS = 1e12  # callers may give timeouts that are no integers of 64 bits
_LEAST_RETRY_SECONDS, _MOST_RETRY_SECONDS = 0.01, 5.0


class _Amount:
    """Seconds of work of a caller or a priority, and its calls."""

    __slots__ = ("calls", "seconds")

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0


class WaitingWork:
    """The work of all calls that wait."""

    def __init__(self) -> None:
        self._priorities: dict[int, _Amount] = {}
        self._callers: dict[Hashable, _Amount] = {}
        self._deadlines: dict[int, _Amount] = {}

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(amount.seconds for amount in self._priorities.values()) if self._priorities else 0.0

    def enter(self, priority: int, caller: Hashable, deadline: float, count: int, seconds: float) -> None:
        """So many calls come to wait, of so many seconds each."""
        _add(self._priorities, priority, count, seconds)
        _add(self._callers, caller, count, seconds)
        if deadline != math.inf:
            _add(self._deadlines, _slot(deadline), count, seconds)

    def leave(self, priority: int, caller: Hashable, deadline: float, count: int, seconds: float) -> None:
        """So many of them wait no more."""
        self.enter(priority, caller, deadline, -count, seconds)

    def wait_seconds(self, priority: int, caller: Hashable, deadline: float, seconds: float, now: float) -> float:
        """How long a call will wait once what runs has ended: for higher priorities, and for the least of three.

        Those are all of its own priority; its caller's, this one among them, as often as there are callers; and what
        has an earlier deadline.
        """
        higher, alike = 0.0, 0.0
        for level, amount in self._priorities.items():
            if level == priority:
                alike = amount.seconds
            elif level > priority:
                higher += amount.seconds
        if alike <= 0.0:
            return higher
        own = self._callers.get(caller)
        fair = seconds * (len(self._callers) + 1) if own is None else (own.seconds + seconds) * len(self._callers)
        return higher + max(min(alike, fair, self._seconds_before(deadline, now)), 0.0)

    def room(self, wait: float, deadline: float, count: int, seconds: float, now: float) -> tuple[int, float]:
        """How many of so many calls, of so many seconds each, are to wait; and when to try again with the others.

        `wait` is how long the first of them would.
        """
        left = deadline - now
        # Where nothing is before it, one call is let in whatever is predicted: what runs puts predictions right.
        excess = max(wait - _WAIT_SHARE * left, wait + seconds - left) if wait > 0.0 else 0.0
        if excess > 0.0:
            return 0, _within_bounds(excess)
        each = seconds * max(len(self._callers), 1)
        room = 1 + int(min(max(_WAIT_SHARE * left - wait, 0.0) / each, count)) if each > 0.0 else count
        return min(room, count), _within_bounds((count - room) * each)

    def _seconds_before(self, deadline: float, now: float) -> float:
        """Work with deadlines not after this one; infinite if that isn't counted."""
        first, last = _slot(now), _slot(deadline)
        if last - first > _SLOTS:
            return math.inf
        amounts = (self._deadlines.get(slot) for slot in range(first, last + 1))
        return sum(amount.seconds for amount in amounts if amount is not None)


class _Batch:
    """A batch that runs."""

    __slots__ = ("expected_seconds", "seconds")

    def __init__(self, expected_seconds: float, seconds: float) -> None:
        self.expected_seconds = expected_seconds
        self.seconds = seconds


class RunningWork:
    """All batches that run, and how much of the device's time each takes.

    Where several run at once, the time that passes is shared out among them: so what they take adds up to what the
    device does, and whoever waits for them waits for the sum.
    """

    def __init__(self) -> None:
        self._batches: dict[Hashable, _Batch] = {}
        self._time = 0.0  # up to which all time is shared out
        self._end_time = -math.inf  # when all that runs should have ended

    def __len__(self) -> int:
        """How many there are."""
        return len(self._batches)

    def wait(self, now: float) -> None:
        """A call comes to wait where none did: if nothing runs, the time until something does is the next batch's."""
        if not self._batches:
            self._time = now

    def begin(self, key: Hashable, expected_seconds: float, now: float, *, counts_wait: bool) -> None:
        """A batch begins that should take so long by itself; `counts_wait`: with the time that nothing ran."""
        seconds = 0.0
        if self._batches:
            self._share(now)
        else:
            seconds = now - self._time if counts_wait else 0.0
            self._time = now
        self._batches[key] = _Batch(expected_seconds, seconds)
        self._end_time = max(self._end_time, now) + expected_seconds

    def end(self, key: Hashable, now: float) -> float:
        """It has ended; the seconds that it took, less what others had of them."""
        self._share(now)
        seconds = self._batches.pop(key).seconds
        left_seconds = sum(batch.expected_seconds for batch in self._batches.values())
        self._end_time = min(self._end_time, now + left_seconds) if self._batches else -math.inf
        return seconds

    def seconds_left(self, now: float) -> float:
        """Until all of them have ended."""
        return max(self._end_time - now, 0.0)

    def _share(self, now: float) -> None:
        seconds = (now - self._time) / len(self._batches)
        for batch in self._batches.values():
            batch.seconds += seconds
        self._time = now


def _add(amounts: dict[Any, _Amount], key: Hashable, count: int, seconds: float) -> None:
    amount = amounts.get(key)
    if amount is None:
        amount = amounts[key] = _Amount()
    amount.calls += count
    amount.seconds += count * seconds
    if not amount.calls:  # which also forgets what sums of floats have lost
        del amounts[key]


def _slot(deadline: float) -> int:
    return int(min(deadline, _FARTHEST_SECONDS) / _SLOT_SECONDS)


def _within_bounds(seconds: float) -> float:
    return min(max(seconds, _LEAST_RETRY_SECONDS), _MOST_RETRY_SECONDS)
