"""Decides which failed calls are sent again, and when. Pure rules: time and chance are arguments.

It knows errors; neither calls nor channels. Calls are pure functions of their bytes, so sending again is always safe;
what the rules prevent is a storm of it on a server that is in trouble (gRFC A6).
"""

from __future__ import annotations

import random

import grpc

from layerwire.errors import LayerwireError

FIRST_BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 2.0
# How a stream, or a connection, may end without the calls on it being to blame. A stopping grpcio server ends streams
# with CANCELLED, a reset one with INTERNAL or UNKNOWN (grpc/grpc#41785).
_RESENT_AFTER = frozenset({grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
# "Internal error from Core" is grpc.aio's own for a write to a stream that the server has just ended.
_RESET = ("RST_STREAM", "Stream removed", "GOAWAY", "connection", "Connection", "Internal error from Core")


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
