"""How long a stream's next frame waits for company, by how long answers take. Pure: time is an argument.

It knows neither calls nor frames.
"""

from __future__ import annotations

from collections.abc import Sequence


class FrameInterval:
    """The least time between frames that hold few calls.

    A frame costs client, gateway and worker as much as several calls do. Where every answer takes long, since the
    server has more to do than it can, a call loses nothing by leaving a little later and in company, and the server
    gains what frames of one call each would have cost it. What is answered quickly waits for nothing.
    """

    WAIT_SHARE = 1 / 64  # of the least time that an answer took of late
    LEAST_SECONDS, MOST_SECONDS = 0.001, 0.008  # timers can't tell less; by more, nothing is won
    MEMORY_SECONDS = 1.0  # after which a call may take longer than one before
    UNANSWERED_SECONDS = 2.0  # after which it isn't waited for
    NEAR_SECONDS = 0.064  # to a deadline; such a call waits for no company

    def __init__(self) -> None:
        self._seconds = 0.0
        self._frame_time = 0.0
        self._call_id = -1  # of the call whose answer is waited for; one at a time is enough
        self._call_time = 0.0
        self._least_seconds = self._least_time = 0.0

    @property
    def is_long(self) -> bool:
        """Whether any frame is to wait."""
        return self._seconds > 0.0

    def observe_frame(self, call_id: int, now: float) -> None:
        """A frame leaves, of which this is the first call."""
        self._frame_time = now
        if self._call_id < 0 or now - self._call_time > self.UNANSWERED_SECONDS:
            self._call_id, self._call_time = call_id, now

    def observe_answer(self, call_ids: Sequence[int], now: float, *, success: bool) -> None:
        """Calls of a frame, in their order, were answered alike; refusals are quick and say nothing."""
        if not call_ids or call_ids[0] != self._call_id:
            return
        self._call_id = -1
        if not success:
            return
        seconds = now - self._call_time
        if seconds <= self._least_seconds or now - self._least_time > self.MEMORY_SECONDS:
            self._least_seconds, self._least_time = seconds, now
        share = self._least_seconds * self.WAIT_SHARE
        self._seconds = 0.0 if share < self.LEAST_SECONDS else min(share, self.MOST_SECONDS)

    def wait_seconds(self, deadline: float, now: float) -> float:
        """How long a frame of few calls is to wait, the first of whose deadlines this is."""
        if not self.is_long or deadline - now < self.NEAR_SECONDS:
            return 0.0
        seconds = self._frame_time + self._seconds - now
        return seconds if seconds >= self.LEAST_SECONDS else 0.0
