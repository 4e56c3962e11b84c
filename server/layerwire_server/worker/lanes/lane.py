"""One lane: calls wait in it that may share a batch, and it fills batches. Time is an argument; standard library only.

It knows nothing of other lanes, nor of what shares and limits them; what waits is opaque to it.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

Call = TypeVar("Call", bound="LaneItem")


class Limits(NamedTuple):
    """What a batch and the queue may hold."""

    batch_rows: int
    batch_bytes: int
    batch_cost: float
    queue_calls: int
    queue_bytes: int
    max_delay_seconds: float = 0.0


class LaneItem:
    """What lanes need of a call while it waits, from `offer` until a batch takes it, it expires, or is withdrawn."""

    __slots__ = (
        "arrival_time",
        "caller",
        "cost",
        "deadline",
        "footprint",
        "is_gone",
        "key",
        "nbytes",
        "order",
        "priority",
        "rows",
    )

    key: Any  # hashable, and otherwise opaque: the lane
    caller: Any  # likewise: who pays for it
    rows: int
    nbytes: int  # while it waits
    footprint: int  # bytes on the device while it runs
    cost: float
    priority: int
    deadline: float  # infinity if there is none
    arrival_time: float
    order: int  # set by the lanes
    is_gone: bool  # set by the lanes


class Batch(NamedTuple, Generic[Call]):
    """Calls of one lane, to run together."""

    key: Any  # the calls'
    calls: list[Call]
    rows: int
    cost: float
    reason: str  # why it holds no more: "drained", "rows", "bytes", "cost", "single"


@dataclass(eq=False, slots=True)
class Lane(Generic[Call]):
    """Calls of one key, by priority, then earliest deadline, then arrival.

    Attributes:
        max_rows: most rows of a batch.
        ceiling: rows that the device's memory bore last.
        rows: rows of the calls that wait.
        count: how many calls wait.
        level: the priority it stands at among lanes: its head's.
    """

    key: Hashable
    max_rows: int
    ceiling: float
    rows: int = 0
    count: int = 0
    level: int = 0
    _heap: list[tuple[int, float, int, Call]] = field(default_factory=list)

    def push(self, call: Call) -> None:
        """One more call waits."""
        heapq.heappush(self._heap, (-call.priority, call.deadline, call.order, call))
        self.rows += call.rows
        self.count += 1

    def leave(self, call: Call) -> None:
        """A call waits no more."""
        call.is_gone = True
        self.rows -= call.rows
        self.count -= 1

    def clear(self) -> None:
        """Forgets calls that are gone, where no others are left."""
        self._heap.clear()

    def head(self) -> Call:
        """The call that leaves next."""
        while self._heap[0][3].is_gone:
            heapq.heappop(self._heap)
        return self._heap[0][3]

    def waiting_calls(self) -> Iterator[Call]:
        """The calls that wait, in no order."""
        return (entry[3] for entry in self._heap if not entry[3].is_gone)

    def ripe(self, now: float, max_delay_seconds: float) -> bool:
        """Whether its calls wait for no further company."""
        if not max_delay_seconds or self.rows >= self.max_rows:
            return True
        return now - min(call.arrival_time for call in self.waiting_calls()) >= max_delay_seconds

    def fill(self, limits: Limits, lead: Call | None) -> Batch[Call]:
        """The next batch, whose calls leave; `lead`, one of its calls, goes first whatever its place."""
        max_rows = min(self.max_rows, int(self.ceiling))
        calls: list[Call] = []
        rows, footprint, cost, reason = 0, 0, 0.0, "drained"
        if lead is not None:
            self.leave(lead)
            calls, rows, footprint, cost = [lead], lead.rows, lead.footprint, lead.cost
        while self.count:
            call = self.head()
            if calls:
                if rows + call.rows > max_rows:
                    reason = "rows"
                    break
                if footprint + call.footprint > limits.batch_bytes:
                    reason = "bytes"
                    break
                if cost + call.cost > limits.batch_cost:
                    reason = "cost"
                    break
            heapq.heappop(self._heap)
            self.leave(call)
            calls.append(call)
            rows, footprint, cost = rows + call.rows, footprint + call.footprint, cost + call.cost
            if max_rows <= 1:
                reason = "single"
                break
        return Batch(self.key, calls, rows, cost, reason)
