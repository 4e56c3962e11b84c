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
    slots: int = 1,
    seed: int = 0,
) -> Outcome:
    """What becomes of Poisson arrivals, of a mean rate a second.

    Args:
        slots: batches that run at once, and take as much longer.
        transit_seconds: what an answer takes on its way, of which the lanes know nothing.
        hiccup: seconds that a batch takes besides, by the time it begins.
    """
    chance = random.Random(seed)
    shares = [kind.share for kind in kinds]
    device = _Device(chance, hiccup, transit_seconds, slots)
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


@dataclass(eq=False)
class _Run:
    """A batch that runs, and how long it would by itself from now on."""

    batch: Batch[Item]
    start: float
    seconds: float


class _Device:
    """What waits, and the batches that run; each of several gets an equal share of the device."""

    def __init__(
        self, chance: random.Random, hiccup: Callable[[float], float], transit_seconds: float, slots: int
    ) -> None:
        self.outcome = Outcome()
        self._lanes: Lanes[Item] = Lanes(LIMITS)
        self._chance, self._hiccup, self._transit_seconds = chance, hiccup, transit_seconds
        self._slots = slots
        self._runs: list[_Run] = []
        self._now = 0.0

    @property
    def end(self) -> float:
        """When the next batch ends."""
        return min((self._now + run.seconds * len(self._runs) for run in self._runs), default=math.inf)

    def offer(self, item: Item, now: float) -> None:
        """A call arrives."""
        try:
            self._lanes.offer(item, item.kind.max_rows, now)
        except Full as full:
            self.outcome.refused[item.key] += 1
            self.outcome.retry_seconds.append(full.retry_after_seconds)

    def begin(self, now: float) -> None:
        """Runs what is next, while there is a place."""
        self._advance(now)
        while len(self._runs) < self._slots and (batch := self._lanes.take(now)) is not None:
            kind = batch.calls[0].kind
            seconds = kind.batch_seconds + kind.row_seconds * batch.rows
            self._runs.append(_Run(batch, now, seconds * self._chance.uniform(0.7, 1.3) + self._hiccup(now)))
        self.outcome.expired.update(item.key for item in self._lanes.expire(now))

    def finish(self) -> None:
        """The next batch has run."""
        now = self.end
        self._advance(now)
        run = min(self._runs, key=lambda each: each.seconds)
        self._runs.remove(run)
        self._lanes.charge(run.batch, now - run.start)
        self._lanes.observe(run.batch, now)
        for item in run.batch.calls:
            is_in_time = now + self._transit_seconds <= item.deadline
            (self.outcome.in_time if is_in_time else self.outcome.late)[item.key] += 1

    def _advance(self, now: float) -> None:
        for run in self._runs:
            run.seconds -= (now - self._now) / len(self._runs)
        self._now = now
