"""A device that runs what lanes give it, on a virtual clock: calls arrive at random, whatever became of others."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from layerwire_server.worker.lanes.lane import Batch, Full, LaneItem, Limits
from layerwire_server.worker.lanes.lanes import Lanes

LIMITS = Limits(batch_rows=4096, batch_bytes=2**26, batch_cost=math.inf, queue_calls=16384, queue_bytes=2**30)


@dataclass(eq=False)
class Kind:
    """Calls that are alike.

    Attributes:
        key: their lane.
        batch_seconds, row_seconds: what a batch takes, and what each call in it adds.
        share: of the calls that arrive.
        timeout: of each.
        caller, priority: of each.
        max_rows: most of a batch.
    """

    key: str
    batch_seconds: float
    row_seconds: float
    share: float = 1.0
    timeout: float = 1.0
    caller: int = 0
    priority: int = 0
    max_rows: int = 64

    def capacity(self) -> float:
        """Calls a second if the device ran nothing else, in batches as large as may be."""
        return self.max_rows / (self.batch_seconds + self.row_seconds * self.max_rows)


class Item(LaneItem):
    """A call of a kind."""

    def __init__(self, kind: Kind, now: float) -> None:
        self.kind = kind
        self.key, self.caller, self.priority = kind.key, kind.caller, kind.priority
        self.count = self.rows = self.nbytes = self.footprint = 1
        self.cost = 1.0
        self.arrival_time, self.deadline = now, now + kind.timeout
        self.is_gone = True


@dataclass
class Outcome:
    """What became of calls, by kind.

    Attributes:
        in_time: answered before their deadline.
        late: answered after it.
        refused: told at once that there is no room.
        expired: told that their deadline passed, or will.
        retry_seconds: when those that were refused are to try again.
    """

    in_time: Counter[str] = field(default_factory=Counter)
    late: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    expired: Counter[str] = field(default_factory=Counter)
    retry_seconds: list[float] = field(default_factory=list)


def simulate(
    kinds: Sequence[Kind],
    rate: float,
    seconds: float,
    *,
    transit_seconds: float = 0.02,
    hiccup: Callable[[float], float] = lambda _: 0.0,
    seed: int = 0,
) -> Outcome:
    """What becomes of Poisson arrivals, of a mean rate a second.

    Args:
        transit_seconds: what an answer takes on its way, of which the lanes know nothing.
        hiccup: seconds that a batch takes besides, by the time it begins.
    """
    chance = random.Random(seed)
    shares = [kind.share for kind in kinds]
    device = _Device(chance, hiccup, transit_seconds)
    arrival = chance.expovariate(rate)
    while min(arrival, device.end) < seconds:
        if device.end <= arrival:
            now = device.end
            device.finish()
        else:
            now = arrival
            arrival += chance.expovariate(rate)
            (kind,) = chance.choices(kinds, shares)
            device.offer(Item(kind, now), now)
        device.begin(now)
    return device.outcome


class _Device:
    """What waits, and the batch that runs."""

    def __init__(self, chance: random.Random, hiccup: Callable[[float], float], transit_seconds: float) -> None:
        self.outcome = Outcome()
        self.end = math.inf
        self._lanes: Lanes[Item] = Lanes(LIMITS)
        self._chance, self._hiccup, self._transit_seconds = chance, hiccup, transit_seconds
        self._batch: Batch[Item] | None = None
        self._start = 0.0

    def offer(self, item: Item, now: float) -> None:
        """A call arrives."""
        try:
            self._lanes.offer(item, item.kind.max_rows, now)
        except Full as full:
            self.outcome.refused[item.key] += 1
            self.outcome.retry_seconds.append(full.retry_after_seconds)

    def begin(self, now: float) -> None:
        """Runs what is next, if nothing runs."""
        if self._batch is None:
            self._batch = self._lanes.take(now)
            if self._batch is not None:
                kind = self._batch.calls[0].kind
                seconds = kind.batch_seconds + kind.row_seconds * self._batch.rows
                self._start, self.end = now, now + seconds * self._chance.uniform(0.7, 1.3) + self._hiccup(now)
        self.outcome.expired.update(item.key for item in self._lanes.expire(now))

    def finish(self) -> None:
        """The batch has run."""
        assert self._batch is not None
        self._lanes.charge(self._batch, self.end - self._start)
        self._lanes.observe(self._batch, self.end)
        for item in self._batch.calls:
            is_in_time = self.end + self._transit_seconds <= item.deadline
            (self.outcome.in_time if is_in_time else self.outcome.late)[item.key] += 1
        self._batch, self.end = None, math.inf
