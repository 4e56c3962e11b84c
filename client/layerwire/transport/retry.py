"""Decides which failed calls are sent again, and when. Pure rules: time and chance are arguments.

It knows errors; neither calls nor channels. Calls are pure functions of their bytes, so sending again is always safe;
what the rules prevent is a storm of it on a server that is in trouble (gRFC A6).
"""

from __future__ import annotations

import random
from collections.abc import Hashable

import grpc

from layerwire.errors import LayerwireError, ResourceExhaustedError

FIRST_BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 2.0
# How a stream, or a connection, may end without the calls on it being to blame. A stopping grpcio server ends streams
# with CANCELLED, a reset one with INTERNAL or UNKNOWN (grpc/grpc#41785).
_RESENT_AFTER = frozenset({grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
CORE_ERROR = "Internal error from Core"  # grpc.aio's own, for a write to a stream that the server has just ended
_RESET = ("RST_STREAM", "Stream removed", "GOAWAY", "connection", "Connection", CORE_ERROR)


def may_resend(code: grpc.StatusCode, details: str) -> bool:
    """Whether a stream that ended so may be opened again for the calls that were on it."""
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return any(word in details for word in _RESET)
    return code in _RESENT_AFTER


def backoff_seconds(failures: int, chance: random.Random) -> float:
    """Seconds to wait after so many failures in a row, at least 1."""
    longest = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 10))
    return longest * chance.uniform(0.5, 1.0)


class Budget:
    """Lets a tenth of the calls be sent again after an answer that asks for it, and a few at the start.

    Args:
        max_retries: times that one call may be sent again after such answers.
    """

    SHARE = 0.1
    SPARE = 10.0

    def __init__(self, max_retries: int) -> None:
        self.max_retries = max_retries
        self._tokens = self.SPARE

    def earn(self) -> None:
        """A call was sent for the first time."""
        if self._tokens < self.SPARE:
            self._tokens += self.SHARE

    def delay_seconds(
        self, error: LayerwireError, tries: int, seconds_left: float, chance: random.Random
    ) -> float | None:
        """Seconds after which to send the call again, paid for; None: the error stands.

        Args:
            error: what the server answered.
            tries: times that this call was sent again before.
            seconds_left: seconds until the call's deadline.
            chance: where jitter comes from.
        """
        if error.code == grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_after_seconds is not None:
            delay = error.retry_after_seconds * chance.uniform(1.0, 1.25)
        elif error.code == grpc.StatusCode.UNAVAILABLE:
            delay = max(backoff_seconds(tries + 1, chance), error.retry_after_seconds or 0.0)
        else:
            return None
        if tries >= self.max_retries or delay >= seconds_left or self._tokens < 1.0:
            return None
        self._tokens -= 1.0
        return delay


class Throttle:
    """Keeps calls from a server that has asked for time, but for a few more than it serves.

    Who refuses a call with a time to come back would refuse those like it too, and each refusal costs it time that
    others' answers would have had. So until that time is past, of calls that are alike (one key) only `SURPLUS` times
    as many go out as were answered of late: enough to notice at once when it can do more. This is client-side
    throttling as in Google's "Site Reliability Engineering", chapter 21. The others are refused here, with the words
    of the server.

    Args:
        chance: decides which calls go out.
    """

    SURPLUS = 1.25
    SPARE = 16.0  # calls that go out whatever was answered, of each key
    MEMORY_SECONDS = 1.0  # after which what happened counts half
    MOST_KEYS = 256

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._loads: dict[Hashable, _Load] = {}

    def __bool__(self) -> bool:
        """Whether any calls may be kept back."""
        return bool(self._loads)

    def observe_refusal(self, key: Hashable, error: LayerwireError, now: float) -> None:
        """The server answered a call with this error; it says nothing unless it asks for time."""
        if error.code != grpc.StatusCode.RESOURCE_EXHAUSTED or error.retry_after_seconds is None:
            return
        load = self._loads.get(key)
        if load is None:
            if len(self._loads) >= self.MOST_KEYS:
                self._loads.pop(next(iter(self._loads)))
            load = self._loads[key] = _Load(error, now)
        load.end_time = now + error.retry_after_seconds
        load.error = error

    def observe_answers(self, key: Hashable, count: int, now: float) -> None:
        """The server answered so many calls otherwise."""
        load = self._loads.get(key)
        if load is not None:
            load.age(now)
            load.answers += count

    def refusal(self, key: Hashable, now: float) -> LayerwireError | None:
        """The error of a call that isn't to be sent; None if it is."""
        load = self._loads.get(key)
        if load is None:
            return None
        if now >= load.end_time + self.MEMORY_SECONDS:
            del self._loads[key]
            return None
        load.age(now)
        load.calls += 1.0
        excess = load.calls - self.SURPLUS * load.answers - self.SPARE
        if now >= load.end_time or excess <= 0.0 or self._chance.random() * load.calls >= excess:
            return None
        error = load.error
        return ResourceExhaustedError(
            error.message, operator=error.operator, field=error.field, retry_after_seconds=load.end_time - now
        )


class _Load:
    """Calls of one key.

    Attributes:
        calls: that were to be sent, of late.
        answers: that the server gave to some, of late, but refusals.
        end_time: when the server may be asked again.
        error: with which it refused.
    """

    __slots__ = ("_time", "answers", "calls", "end_time", "error")

    def __init__(self, error: LayerwireError, now: float) -> None:
        self.calls = self.answers = 0.0
        self.error = error
        self.end_time = self._time = now

    def age(self, now: float) -> None:
        """Forgets some of what was."""
        share = 0.5 ** ((now - self._time) / Throttle.MEMORY_SECONDS)
        self.calls *= share
        self.answers *= share
        self._time = now
