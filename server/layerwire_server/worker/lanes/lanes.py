"""Lets calls wait, and picks those that run next, together: the pure rule. Time is an argument; standard library only.

It knows nothing of tensors, sockets or clocks; what waits is opaque to it, but for how many calls it is.

- Callers, and then lanes, of the highest waiting priority share the device by deficit round robin (Shreedhar and
  Varghese 1995) over measured device seconds: each that waits earns its share of the seconds that pass on the device
  and pays for its own, so that alternating keys don't end each other's batches, one key can't starve another, and a
  caller gains nothing by spreading over many keys. Who went idle in debt keeps the debt, less the time away.
- Every `OLDEST_EVERY`-th batch is led by the oldest call of all, whatever its priority: nobody starves.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import Generic

from layerwire_server.worker.lanes.fair_shares import FairShares
from layerwire_server.worker.lanes.lane import LOADED_SECONDS, Batch, Call, Full, Lane, Limits
from layerwire_server.worker.lanes.waiting_work import RunningWork, WaitingWork

OLDEST_EVERY = 8
_IDLE_LANES = 8192  # lanes without calls whose ceilings are remembered
_SLACK = 4096  # calls that are gone but still stand in a heap, at most beside as many that wait
_LEAST_SECONDS = 1e-6  # a batch never counts as free


class Lanes(Generic[Call]):
    """All lanes of a device."""

    def __init__(self, limits: Limits) -> None:
        self.calls = 0
        self.nbytes = 0
        self._limits = limits
        self._sole: Call | None = None  # an item that waits with no other beside it: it is in none of what follows
        self._sole_max_rows = 0
        self._lanes: dict[Hashable, Lane[Call]] = {}
        self._idle: OrderedDict[Hashable, Lane[Call]] = OrderedDict()
        self._rings: dict[int, OrderedDict[Hashable, Lane[Call]]] = {}
        self._deadlines: list[tuple[float, int, Call]] = []
        self._arrivals: list[tuple[float, int, Call]] = []
        self._order = 0
        self._batch_count = 0
        self._seconds_per_call = 0.0
        self._lane_shares = FairShares()
        self._caller_shares = FairShares()
        self._waiting_work = WaitingWork()
        self._late: list[Call] = []
        self._running_work = RunningWork()

    @property
    def limits(self) -> Limits:
        """What a batch and the queue may hold."""
        return self._limits

    def __len__(self) -> int:
        """Lanes with waiting calls."""
        return len(self._lanes) + (self._sole is not None)

    def offer(self, call: Call, max_rows: int, now: float) -> None:
        """Lets calls wait in the lane of their key; `max_rows` bounds its batches besides the limit for all.

        Raises:
            Full: there is no room for all of them; the first wait, as many as there is room for.
        """
        limits = self._limits
        if (
            not self.calls
            and call.count <= limits.queue_calls
            and call.nbytes * call.count <= limits.queue_bytes
            and not limits.max_delay_seconds
        ):
            self._sole, self._sole_max_rows = call, max_rows
            self._order += call.count
            call.order, call.is_gone = self._order - call.count + 1, False
            self.calls, self.nbytes = call.count, call.nbytes * call.count
            self._running_work.wait(now)
            return
        self._seat_sole(now)
        room, reason, retry_seconds = self._room(call, max_rows, now)
        if room >= call.count:
            self._enter(call, max_rows, now)
            return
        if not room:
            raise Full(reason, retry_seconds, call)
        rest = call.part(room, call.count)
        call.keep(0, room)
        self._enter(call, max_rows, now)
        raise Full(reason, retry_seconds, rest)

    def _room(self, call: Call, max_rows: int, now: float) -> tuple[int, str, float]:
        """How many of the calls the queue has room for, what it lacks for more, and when to try again with them."""
        limits = self._limits
        room, reason, retry_seconds = limits.queue_calls - self.calls, "calls", self.retry_after_seconds()
        if self.nbytes + call.nbytes * min(call.count, room) > limits.queue_bytes:
            bytes_room = max(limits.queue_bytes - self.nbytes, 0) // max(call.nbytes, 1)
            if not self.calls:
                bytes_room = max(bytes_room, 1)  # one that is larger than the queue waits by itself
            if bytes_room < room:
                room, reason = bytes_room, "bytes"
        count = max(min(room, call.count), 0)
        timely, wait_seconds = self._timely(call, count, min(max_rows, limits.batch_rows), now)
        if timely < count:
            return timely, "seconds", wait_seconds
        return max(room, 0), reason, retry_seconds

    def _timely(self, call: Call, count: int, max_rows: int, now: float) -> tuple[int, float]:
        """How many of the calls can be served before their deadline, and when to try again with the others."""
        call.seconds = call.wait_seconds = 0.0
        lane = self._lanes.get(call.key) or self._idle.get(call.key)
        if lane is None:
            return count, 0.0
        call.seconds = lane.pace.seconds_in_company(call.rows, max_rows, now)
        if call.deadline == math.inf or not count:
            return count, 0.0
        work = self._waiting_work
        call.wait_seconds = self._running_work.seconds_left(now) + work.wait_seconds(
            call.priority, call.caller, call.deadline, call.seconds, now
        )
        return work.room(call.wait_seconds * lane.pace.wait_ratio(now), call.deadline, count, call.seconds, now)

    def _enter(self, call: Call, max_rows: int, now: float) -> None:
        call.order = self._order + 1
        self._order += call.count
        self._insert(call, max_rows, now)
        if len(self._arrivals) > 2 * self.calls + _SLACK:
            self._sweep()

    def _insert(self, call: Call, max_rows: int, now: float) -> None:
        call.is_gone = False
        if not self.calls:
            self._running_work.wait(now)
        most = min(max_rows, self._limits.batch_rows)
        lane = self._lanes.get(call.key) or self._open(call.key, most, call.priority, now)
        lane.push(call)
        self._caller_shares.enter(call.caller, now, call.count)
        self._waiting_work.enter(call.priority, call.caller, call.deadline, call.count, call.seconds)
        self.calls += call.count
        self.nbytes += call.nbytes * call.count
        heapq.heappush(self._arrivals, (call.arrival_time, call.order, call))
        if call.deadline != math.inf:
            heapq.heappush(self._deadlines, (call.deadline, call.order, call))
        if call.priority > lane.level:
            self._move(lane, call.priority)

    def _seat_sole(self, now: float) -> None:
        """Lets the item that waited by itself wait in its lane, before others come to wait beside it."""
        call, self._sole = self._sole, None
        if call is not None:
            self.calls = self.nbytes = 0
            self._timely(call, 0, min(self._sole_max_rows, self._limits.batch_rows), now)
            self._insert(call, self._sole_max_rows, now)

    def withdraw(self, call: Call, now: float) -> bool:
        """Takes calls back; False if they don't wait any more."""
        if call.is_gone:
            return False
        if call is self._sole:
            self._sole = None
            self.calls = self.nbytes = 0
            call.is_gone = True
            return True
        lane = self._lanes[call.key]
        lane.leave(call)
        self._forget(call, now)
        self._settle(lane, now)
        return True

    def replace(self, call: Call, pieces: Sequence[Call], now: float) -> None:
        """Lets some of the calls of an item that waits wait on, each piece in their place; the others leave."""
        self._seat_sole(now)
        lane = self._lanes[call.key]
        for piece in pieces:
            piece.seconds, piece.wait_seconds = call.seconds, call.wait_seconds
            self._insert(piece, lane.max_rows, now)
        self.withdraw(call, now)

    def expire(self, now: float) -> list[Call]:
        """Removes and returns the calls whose deadline has passed, and those that `take` found too late to begin."""
        calls, self._late = self._late, []
        sole = self._sole
        if sole is not None:
            return [*calls, sole] if sole.deadline <= now and self.withdraw(sole, now) else calls
        heap = self._deadlines
        while heap and (heap[0][2].is_gone or heap[0][0] <= now):
            call = heapq.heappop(heap)[2]
            if not call.is_gone:
                self._lanes[call.key].observe_wait(call, now)
                self.withdraw(call, now)
                calls.append(call)
        return calls

    def take(self, now: float) -> Batch[Call] | None:
        """The batch to run now, or None if none is ready. Call `expire` first."""
        if self._sole is not None:
            if (batch := self._take_sole(self._sole, now)) is not None:
                return batch
            self._seat_sole(now)
        while (lane := self._choose(now)) is not None:
            is_turn_of_oldest = self._batch_count % OLDEST_EVERY == OLDEST_EVERY - 1
            lead = self._oldest() if is_turn_of_oldest and self._oldest().key == lane.key else None
            if self._remove_late(lane, lead, now):
                continue
            self._batch_count += 1
            batch = lane.fill(self._limits, lead, now, len(self._running_work))
            lane.observe_wait(batch.calls[0], now)
            for call in batch.calls:
                self._forget(call, now)
            self._settle(lane, now)
            return self._begin(lane, batch, now)
        return None

    @property
    def has_late(self) -> bool:
        """Whether `take` found calls that would end after their deadline; `expire` has them."""
        return bool(self._late)

    def has_calls_of(self, caller: Hashable) -> bool:
        """Whether calls of a caller wait."""
        return self._caller_shares.is_busy(caller) or (self._sole is not None and self._sole.caller == caller)

    def observe(self, batch: Batch[Call], now: float) -> None:
        """Learns how long a batch of `take` took: it and its answers are done with now.

        All that the worker did since the batch before counts, for so long others have waited; where batches run at
        once, they share it.
        """
        seconds = self._running_work.end(id(batch), now)
        if (lane := self._lanes.get(batch.key) or self._idle.get(batch.key)) is not None:
            is_loaded = self._waiting_work.seconds > LOADED_SECONDS
            lane.pace.observe(batch.rows, seconds, now, is_loaded=is_loaded)

    def _take_sole(self, call: Call, now: float) -> Batch[Call] | None:
        """The item that waits by itself, whose turn it is whatever its caller owes; None if it has to be cut."""
        lane = self._idle.get(call.key)
        if lane is None:
            most = min(self._sole_max_rows, self._limits.batch_rows)
            lane = self._idle[call.key] = Lane(call.key, most, most)
            if len(self._idle) > _IDLE_LANES:
                self._idle.popitem(last=False)
        else:
            self._idle.move_to_end(call.key)
        if lane.is_late(call, now, len(self._running_work)):
            self.withdraw(call, now)
            self._late.append(call)
            return None
        if (batch := lane.whole_batch(self._limits, call, now, len(self._running_work))) is None:
            return None
        self._sole, self.calls, self.nbytes, call.is_gone = None, 0, 0, True
        self._batch_count += 1
        self._lane_shares.pass_through(call.key, now)
        self._caller_shares.pass_through(call.caller, now)
        return self._begin(lane, batch, now)

    def _begin(self, lane: Lane[Call], batch: Batch[Call], now: float) -> Batch[Call]:
        """The batch, which runs from now on until `observe`."""
        expected_seconds = lane.pace.expected_seconds(batch.rows, now)
        self._running_work.begin(id(batch), expected_seconds, now, counts_wait=not self._limits.max_delay_seconds)
        return batch

    def charge(self, batch: Batch[Call], seconds: float) -> None:
        """Lets a batch's lane and callers pay for what it took on the device."""
        lane = self._lanes.get(batch.key) or self._idle.get(batch.key)
        seconds = max(seconds, _LEAST_SECONDS)
        call_seconds = seconds / batch.call_count
        self._seconds_per_call += (call_seconds - self._seconds_per_call) * (0.05 if self._seconds_per_call else 1.0)
        self._lane_shares.pass_on(seconds)
        self._caller_shares.pass_on(seconds)
        self._lane_shares.charge(batch.key, seconds)
        for call in batch.calls:
            self._caller_shares.charge(call.caller, call_seconds * call.count)
        if lane is not None and lane.ceiling < lane.max_rows and batch.rows >= int(lane.ceiling):
            lane.ceiling = min(lane.ceiling * 1.125 + 1, lane.max_rows)

    def bear_at_most(self, key: Hashable, rows: int) -> None:
        """Remembers that the device's memory doesn't bear more rows of a lane; each full batch that runs lifts it."""
        if (lane := self._lanes.get(key) or self._idle.get(key)) is not None:
            lane.ceiling = max(rows, 1)

    def wake_at(self, now: float) -> float:
        """When to ask again if nothing happens before: the next deadline or end of a delay; infinity if neither."""
        if self._sole is not None:
            return self._sole.deadline
        while self._deadlines and self._deadlines[0][2].is_gone:
            heapq.heappop(self._deadlines)
        wake = self._deadlines[0][0] if self._deadlines else math.inf
        if self._limits.max_delay_seconds and self.calls:
            wake = min(wake, max(self._oldest().arrival_time + self._limits.max_delay_seconds, now))
        return wake

    def retry_after_seconds(self) -> float:
        """When about half of what waits will have run, by the drain rate of late; 0.01 to 5 s."""
        return min(max(self._seconds_per_call * self.calls / 2, 0.01), 5.0)

    def waiting_calls(self) -> Iterator[Call]:
        """The calls that wait, in no order."""
        if self._sole is not None:
            yield self._sole
        for lane in self._lanes.values():
            yield from lane.waiting_calls()

    def _open(self, key: Hashable, max_rows: int, level: int, now: float) -> Lane[Call]:
        lane = self._idle.pop(key, None) or Lane(key, max_rows, max_rows)
        self._lane_shares.enter(key, now)
        self._lanes[key] = lane
        lane.level = level
        self._rings.setdefault(level, OrderedDict())[key] = lane
        return lane

    def _leave_ring(self, lane: Lane[Call]) -> None:
        ring = self._rings[lane.level]
        del ring[lane.key]
        if not ring:
            del self._rings[lane.level]

    def _move(self, lane: Lane[Call], level: int) -> None:
        self._leave_ring(lane)
        lane.level = level
        self._rings.setdefault(level, OrderedDict())[lane.key] = lane

    def _remove_late(self, lane: Lane[Call], lead: Call | None, now: float) -> bool:
        """Takes calls out of a lane that would be the first of a batch, and would end after their deadline."""
        call = lead or lane.head()
        count = len(self._late)
        while lane.is_late(call, now, len(self._running_work)):
            self.withdraw(call, now)
            self._late.append(call)
            if lead is not None or not lane.count:
                break
            call = lane.head()
        return len(self._late) > count

    def _forget(self, call: Call, now: float) -> None:
        self._waiting_work.leave(call.priority, call.caller, call.deadline, call.count, call.seconds)
        self._caller_shares.leave(call.caller, now, call.count)
        self.calls -= call.count
        self.nbytes -= call.nbytes * call.count

    def _settle(self, lane: Lane[Call], now: float) -> None:
        """Puts a lane where its remaining calls belong."""
        if lane.count:
            level = lane.head().priority
            if level != lane.level:
                self._move(lane, level)
            return
        lane.clear()
        self._leave_ring(lane)
        del self._lanes[lane.key]
        self._lane_shares.leave(lane.key, now)
        self._idle[lane.key] = lane
        if len(self._idle) > _IDLE_LANES:
            self._idle.popitem(last=False)

    def _sweep(self) -> None:
        """Drops calls that are gone from the heaps; in place, by assignment to slices."""
        for heap in (self._arrivals, self._deadlines):
            heap[:] = [entry for entry in heap if not entry[2].is_gone]
            heapq.heapify(heap)

    def _oldest(self) -> Call:
        while self._arrivals[0][2].is_gone:
            heapq.heappop(self._arrivals)
        return self._arrivals[0][2]

    def _choose(self, now: float) -> Lane[Call] | None:
        if not self.calls:
            self._arrivals.clear()
            return None
        delay = self._limits.max_delay_seconds
        oldest = self._oldest()
        if self._batch_count % OLDEST_EVERY == OLDEST_EVERY - 1 and self._lanes[oldest.key].ripe(now, delay):
            return self._lanes[oldest.key]
        for level in sorted(self._rings, reverse=True):
            if (lane := self._next_of_ring(self._rings[level], now)) is not None:
                return lane
        return None

    def _next_of_ring(self, ring: OrderedDict[Hashable, Lane[Call]], now: float) -> Lane[Call] | None:
        """Deficit round robin: the first lane whose caller and itself owe nothing, else where they owe least.

        A lane's caller is that of its first call.
        """
        delay = self._limits.max_delay_seconds
        best: Lane[Call] | None = None
        best_debts = (math.inf, math.inf)
        for lane in ring.values():
            if not lane.ripe(now, delay):
                continue
            debts = self._caller_shares.debt(lane.head().caller), self._lane_shares.debt(lane.key)
            if debts < best_debts:
                best, best_debts = lane, debts
            if not any(debts):
                break
        if best is not None:
            ring.move_to_end(best.key)
        return best
