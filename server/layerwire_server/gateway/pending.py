"""A frame that awaits answers, as the router keeps it.

It knows neither who waits for the answers nor what the bytes mean.
"""

from __future__ import annotations

from typing import Any

from layerwire.errors import LayerwireError
from layerwire_server.link import QUARANTINED, Family, Flag, Frame, Kind

DECODING = -1  # in place of the ordinal of the call that runs alone: the message is being parsed


class Pending:
    """A frame that awaits answers. Subclasses say who waits for them."""

    __slots__ = (
        *("number", "kind", "family", "payload", "stream", "arrived", "deadline"),
        *("holder", "answered_ordinals", "quarantined_ordinals", "suspect_ordinals", "is_isolated", "running_ordinal"),
        *("sent_time", "link"),
    )

    def __init__(
        self,
        kind: Kind,
        payload: bytes | memoryview,
        arrived: float,
        deadline: float,
        family: Family = Family.NONE,
        stream: int = 0,
    ) -> None:
        self.number = 0
        self.kind = kind
        self.family = family
        self.payload = payload
        self.stream = stream
        self.arrived = arrived
        self.deadline = deadline
        self.link: Any = None  # in whose memory the payload lies, so that it needn't be copied to go by it
        self.holder: Any = None  # the live worker that has it, as the router sees it; None while it waits for one
        self.sent_time = arrived  # when that worker got it
        self.answered_ordinals: set[int] = set()
        self.quarantined_ordinals: set[int] = set()
        self.suspect_ordinals: set[int] = set()  # each ran alone when a worker died, perhaps not of it
        self.is_isolated = False
        self.running_ordinal: int | None = None  # ordinal of the call that runs alone now, or DECODING

    def answer(self, payload: Any, last: bool) -> None:
        """Answers came; they are a response's bytes, as a memoryview only where `takes_view` says so."""
        raise NotImplementedError

    def takes_view(self, nbytes: int) -> bool:
        """Whether an answer of so many bytes may stay where the link has it."""
        return False

    def fail(self, error: LayerwireError | bytes) -> None:
        """It ended by an error, perhaps as the bytes of a google.rpc.Status; nothing follows."""
        raise NotImplementedError

    def frame(self) -> Frame:
        """What a worker is to do with it now."""
        flags = Flag.ISOLATE if self.is_isolated else Flag.NONE
        ordinals: tuple[int, ...] = ()
        if self.answered_ordinals or self.quarantined_ordinals:
            marks = sorted(ordinal | QUARANTINED for ordinal in self.quarantined_ordinals)
            ordinals = (*sorted(self.answered_ordinals), *marks)
        return Frame(
            self.kind, self.number, self.payload, flags, self.family, ordinals, self.stream, self.arrived, self.deadline
        )
