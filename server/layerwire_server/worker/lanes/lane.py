"""One lane: calls wait in it that may share a batch, and it fills batches. Time is an argument; standard library only.

It knows nothing of other lanes, nor of what shares and limits them; what waits is opaque to it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Self, TypeVar

from layerwire_server.worker.lanes.pace import Pace

LOADED_SECONDS = 0.02  # of work that waits: batches are as large then as they will be

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
    """What lanes need of calls that are alike while they wait, from `offer` until a batch takes them or they leave.

    Sizes are those of each of the calls.
    """

    __slots__ = (
        "arrival_time",
        "caller",
        "cost",
        "count",
        "deadline",
        "footprint",
        "is_gone",
        "key",
        "nbytes",
        "order",
        "priority",
        "rows",
        "seconds",
        "wait_seconds",
    )

    key: Any  # hashable, and otherwise opaque: the lane
    caller: Any  # likewise: who pays for it
    count: int  # calls
    rows: int
    nbytes: int  # while it waits
    footprint: int  # bytes on the device while it runs
    cost: float
    priority: int
    deadline: float  # infinity if there is none
    arrival_time: float
    order: int  # of the first call, set by the lanes; the others follow it
    is_gone: bool  # set by the lanes
    seconds: float  # of work, each call's; set by the lanes
    wait_seconds: float  # predicted, set by the lanes

    def part(self, start: int, stop: int) -> Self:
        """Some of the calls as an item of their own."""
        raise NotImplementedError

    def keep(self, start: int, stop: int) -> None:
        """Gives all other calls up."""
        raise NotImplementedError

    def __lt__(self, other: object) -> bool:
        """Never: items of equal rank in a heap stand in any order."""
        return False


class Batch(NamedTuple, Generic[Call]):
    """Calls of one lane, to run together. `calls` has an item for those that are alike."""

    key: Any  # the calls'
    calls: list[Call]
    rows: int
    cost: float
    reason: str  # why it holds no more: "drained", "rows", "bytes", "cost", "deadline", "single"

    @property
    def call_count(self) -> int:
        """How many calls they are."""
        calls = self.calls
        return calls[0].count if len(calls) == 1 else sum(call.count for call in calls)


class Full(Exception):
    """The queue has no room: `reason` is "calls", "bytes", or "seconds" where the deadline is too near.

    `rest` are the calls that it has none for.
    """

    def __init__(self, reason: str, retry_after_seconds: float, rest: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.rest = rest


@dataclass(eq=False, slots=True)
class Lane(Generic[Call]):
    """Calls of one key, by priority, then earliest deadline, then arrival.

    Attributes:
        max_rows: most rows of a batch.
        ceiling: rows that the device's memory bore last.
        rows: rows of the calls that wait.
        count: how many calls wait.
        level: the priority it stands at among lanes: its head's.
        pace: how long its batches take.
    """

    key: Hashable
    max_rows: int
    ceiling: float
    rows: int = 0
    count: int = 0
    level: int = 0
    pace: Pace = field(default_factory=Pace)
    _heap: list[tuple[int, float, int, Call]] = field(default_factory=list)

    def push(self, call: Call) -> None:
        """One more call waits."""
        heapq.heappush(self._heap, (-call.priority, call.deadline, call.order, call))
        self.rows += call.rows * call.count
        self.count += call.count

    def leave(self, call: Call) -> None:
        """A call waits no more."""
        call.is_gone = True
        self.rows -= call.rows * call.count
        self.count -= call.count

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

    def observe_wait(self, call: Call, now: float) -> None:
        """A call has waited until now."""
        if call.wait_seconds > LOADED_SECONDS:
            self.pace.observe_wait(call.wait_seconds, now - call.arrival_time)

    def is_late(self, call: Call, now: float, others: int = 0) -> bool:
        """Whether a call would end after its deadline if it ran now, beside so many other batches."""
        deadline = call.deadline
        return deadline != math.inf and now + self.pace.expected_seconds(call.rows, now) * (1 + others) > deadline

    def whole_batch(self, limits: Limits, call: Call, now: float, others: int = 0) -> Batch[Call] | None:
        """The batch of an item that waits for nothing and has no neighbours; None if it has to be cut.

        It runs beside so many other batches.
        """
        max_rows, count = min(self.max_rows, int(self.ceiling)), call.count
        rows, cost = call.rows * count, call.cost * count
        if count == 1:
            return Batch(self.key, [call], rows, cost, "single" if max_rows <= 1 else "drained")
        if (
            max_rows <= 1 or rows > max_rows or call.footprint * count > limits.batch_bytes or cost > limits.batch_cost
            or (call.deadline != math.inf and rows > self.pace.rows_within((call.deadline - now) / (1 + others), now))
        ):  # fmt: skip
            return None
        return Batch(self.key, [call], rows, cost, "drained")

    def fill(self, limits: Limits, lead: Call | None, now: float, others: int = 0) -> Batch[Call]:
        """The next batch, whose calls leave; `lead`, one of its calls, goes first whatever its place.

        It runs beside so many other batches.
        """
        max_rows = min(self.max_rows, int(self.ceiling))
        calls: list[Call] = []
        rows, footprint, cost, reason = 0, 0, 0.0, "drained"
        deadline = math.inf
        while self.count and reason == "drained":
            call = lead or self.head()
            lead = None
            deadline = min(deadline, call.deadline)
            timely_rows = (
                math.inf if deadline == math.inf else self.pace.rows_within((deadline - now) / (1 + others), now)
            )
            count, reason = _most(
                call.count,
                (call.rows, timely_rows - rows, "deadline"),
                (call.rows, max_rows - rows, "rows"),
                (call.footprint, limits.batch_bytes - footprint, "bytes"),
                (call.cost, limits.batch_cost - cost, "cost"),
            )
            if not count:
                if calls:
                    break
                count = 1  # one that is larger than a batch runs by itself
                reason = "drained" if call.count == 1 else reason
            if max_rows <= 1:
                count, reason = 1, "single"
            calls.append(self._remove(call, count))
            rows, footprint = rows + call.rows * count, footprint + call.footprint * count
            cost += call.cost * count
        return Batch(self.key, calls, rows, cost, reason)

    def _remove(self, call: Call, count: int) -> Call:
        """So many calls of an item, which leave; where others stay, its place in the heaps does for them."""
        if count == call.count:
            self.leave(call)
            return call
        head = call.part(0, count)
        head.seconds, head.wait_seconds = call.seconds, call.wait_seconds
        call.keep(count, call.count)
        head.is_gone = True
        self.rows -= head.rows * count
        self.count -= count
        return head


def _most(count: int, *limits: tuple[float, float, str]) -> tuple[int, str]:
    """How many of so many calls fit, and why not more, "drained" if all do: what each takes, and what is left of it."""
    reason = "drained"
    for size, room, name in limits:
        if size * count > room:
            count, reason = int(max(room, 0) / size) if size else 0, name
    return count, reason
