"""Gives calls to connections, matches them with answers, lets them expire, sends them again; on one event loop.

It knows connections and calls; neither threads nor the operators' names, which are its callers' business.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count

import grpc

from layerwire.errors import (
    CallCancelledError,
    DeadlineExceededError,
    LayerwireError,
    ResourceExhaustedError,
    make,
)
from layerwire.transport.admission import Admission
from layerwire.transport.call import Call
from layerwire.transport.connection import FRAME_OVERHEAD_BYTES, Connection
from layerwire.transport.retry import Budget
from layerwire.transport.settings import Settings
from layerwire.v1 import layerwire_pb2 as messages

_FAILURES_BEFORE_ANSWER = 3  # streams that must fail before an address that never answered is given up
_SPARE = 1024  # finished calls that the heap of deadlines may hold before it is swept
_TOO_LARGE = re.compile(r"larger than max \(\d+ vs\. (\d+)\)")


class Engine:
    """The calls of one client. Made on its loop; only `post`, `admission` and `check` may be used from elsewhere."""

    def __init__(self, settings: Settings) -> None:
        self.loop = asyncio.get_running_loop()
        self.settings = settings
        self.admission = Admission(settings.max_calls_in_flight, settings.max_bytes_in_flight)
        self._ids = count(1)
        self._waiting_calls: deque[Call] = deque()
        self._retries: set[Call] = set()
        self._inbox: deque[Call] = deque()
        self._is_inbox_scheduled = False
        self._turn = 0
        self._last_error: LayerwireError | None = None
        self._budget = Budget(settings.max_retries)
        self._deadlines = Deadlines(self.loop, self._expire)
        self._chance = random.Random()  # noqa: S311  # jitter keeps no secret
        self._had_answer = False  # whether an answer ever came
        self.connections: list[Connection] = []
        self.resume()

    def check(self, call: Call) -> None:
        """Whether the call may be sent at all.

        Raises:
            ResourceExhaustedError: it is larger than a message may be.
        """
        limit = self.settings.max_message_bytes
        if call.nbytes + FRAME_OVERHEAD_BYTES > limit:
            raise ResourceExhaustedError(
                f"{call.function}: the call takes {call.nbytes} bytes, more than the {limit} of this client's "
                "max_message_bytes",
                operator=call.function,
            )

    def submit(self, call: Call) -> None:
        """Sends a call that was admitted. Its promise gets a result or an error, whatever happens."""
        call.id = next(self._ids)
        self._budget.earn()
        self._deadlines.add(call)
        self._place(call)

    def post(self, call: Call) -> None:
        """As `submit`, from any thread. Calls that come together cost the loop one wake-up."""
        self._inbox.append(call)
        if not self._is_inbox_scheduled:
            self._is_inbox_scheduled = True
            self.loop.call_soon_threadsafe(self._take_inbox)

    def cancel(self, call: Call) -> None:
        """Gives up a call that nobody waits for any more."""
        if not call.is_finished:
            self._finish(call, CallCancelledError(f"{call.function}: given up by the caller", operator=call.function))

    async def close(self) -> None:
        """Gives up all calls and ends all connections."""
        calls = [*self._inbox, *self._waiting_calls, *self._retries]
        connections, self.connections = self.connections, []
        for connection in connections:
            calls += connection.take_back()
        self._fail_all(calls, CallCancelledError("the client was closed"))
        self._deadlines.close()
        await asyncio.gather(*(connection.close() for connection in connections))

    async def pause(self) -> None:
        """Ends all connections and keeps their calls, so that nothing of gRPC is left until `resume`."""
        connections, self.connections = self.connections, []
        calls = [call for connection in connections for call in connection.take_back()]
        self._park(calls)
        await asyncio.gather(*(connection.close() for connection in connections))

    def resume(self) -> None:
        """Makes connections to all addresses, for the calls that are there already and those to come."""
        settings = self.settings
        watches_health = len(settings.addresses) > 1
        self.connections = [
            Connection(settings, address, self, watches_health=watches_health) for address in settings.addresses
        ]
        self._unpark()

    def on_available(self, connection: Connection) -> None:
        """Connection: calls may be given to it."""
        self._unpark()

    def on_response(self, connection: Connection, frame: bytes) -> None:
        """Connection: a StreamResponse came. Ids that nobody waits for are passed over."""
        self._had_answer = True
        sent_calls = connection.sent_calls
        ncalls = nbytes = 0
        for answer in messages.StreamResponse.FromString(frame).answers:
            call = sent_calls.pop(answer.id, None)
            if call is None or (answer.HasField("status") and self._again(call, answer)):
                continue
            call.is_finished = True
            call.connection = None
            call.data = ()
            ncalls += 1
            nbytes += call.nbytes
            promise = call.promise
            try:
                value = call.value(answer)
            except LayerwireError as error:
                error.operator = error.operator or call.function
                if not promise.done():
                    promise.set_exception(error)
            except Exception as error:  # whatever it is, it is this caller's, not the neighbours'
                if not promise.done():
                    promise.set_exception(error)
            else:
                if not promise.done():
                    promise.set_result(value)
        if ncalls:
            self.admission.leave(ncalls, nbytes)

    def on_loss(self, connection: Connection, calls: Sequence[Call], error: LayerwireError, *, resend: bool) -> None:
        """Connection: the stream ended and with it these calls."""
        self._last_error = error
        if not resend:
            calls = self._without_large(calls, error)
        elif not self.settings.max_retries:
            self._fail_all(calls, error)
            return
        self._park(calls)
        if any(other.available for other in self.connections):
            self._unpark()
        elif not self._had_answer and all(other.failures >= _FAILURES_BEFORE_ANSWER for other in self.connections):
            calls, self._waiting_calls = self._waiting_calls, deque()
            self._fail_all(calls, error)

    def _park(self, calls: Sequence[Call]) -> None:
        now = time.monotonic()
        for call in reversed(calls):
            if not call.is_finished:
                call.connection = None
                call.renew(now)
                self._waiting_calls.appendleft(call)

    def _unpark(self) -> None:
        calls, self._waiting_calls = self._waiting_calls, deque()
        for call in calls:
            self._place(call)

    def _place(self, call: Call) -> None:
        if call.is_finished:
            return
        connections = self.connections
        for _ in connections:
            self._turn = turn = (self._turn + 1) % len(connections)
            connection = connections[turn]
            if connection.available:
                connection.give(call)
                return
        self._waiting_calls.append(call)

    def _take_inbox(self) -> None:
        self._is_inbox_scheduled = False
        inbox = self._inbox
        while inbox:
            self.submit(inbox.popleft())

    def _again(self, call: Call, answer: messages.Answer) -> bool:
        """Whether an answered call is sent again, later."""
        error = call.error(answer)
        now = time.monotonic()
        delay = self._budget.delay_seconds(error, call.tries, call.deadline - now, self._chance)
        if delay is None:
            return False
        call.tries += 1
        call.connection = None
        self._retries.add(call)
        self.loop.call_later(delay, self._resume, call)
        return True

    def _resume(self, call: Call) -> None:
        self._retries.discard(call)
        if not call.is_finished:
            call.renew(time.monotonic())
            self._place(call)

    def _expire(self, call: Call) -> None:
        why = f": {self._last_error.message}" if self._last_error is not None and call.connection is None else ""
        self._fail(call, DeadlineExceededError(f"no answer in time{why}"))

    def _without_large(self, calls: Sequence[Call], error: LayerwireError) -> list[Call]:
        """Fails the calls that a stream ended for, and returns the others.

        A message over the server's limit ends the stream for all calls on it, though one alone is to blame.
        """
        match = _TOO_LARGE.search(error.message)
        if error.code != grpc.StatusCode.RESOURCE_EXHAUSTED or match is None:
            self._fail_all(calls, error)
            return []
        limit = int(match[1])
        large = [call for call in calls if call.nbytes + FRAME_OVERHEAD_BYTES > limit]
        for call in large:
            message = f"a request of {call.nbytes} bytes is over the server's --max-message-bytes {limit}"
            self._fail(call, make(error.code, message))
        if not large:
            self._fail_all(calls, error)
        return [call for call in calls if not call.is_finished]

    def _fail_all(self, calls: Iterable[Call], error: LayerwireError) -> None:
        for call in calls:
            self._fail(call, error)

    def _fail(self, call: Call, error: LayerwireError) -> None:
        if not call.is_finished:
            error_of_call = make(error.code, f"{call.function}: {error.message}")
            error_of_call.operator = call.function
            self._finish(call, error_of_call)

    def _finish(self, call: Call, error: LayerwireError) -> None:
        call.is_finished = True
        call.data = ()
        if call.connection is not None:
            call.connection.give_up(call)
            call.connection = None
        self._retries.discard(call)
        self.admission.leave(1, call.nbytes)
        if not call.promise.done():
            call.promise.set_exception(error)


class Deadlines:
    """Calls `expire` with each call whose deadline passes before it is finished.

    A heap of deadlines under one timer of the loop, so that a call costs no timer of its own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Call], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._heap: list[tuple[float, int, Call]] = []
        self._sweep_at = _SPARE
        self._timer: asyncio.TimerHandle | None = None
        self._timer_deadline = math.inf

    def add(self, call: Call) -> None:
        """Watches a call."""
        deadline = call.deadline
        if deadline == math.inf:
            return
        heappush(self._heap, (deadline, call.id, call))
        if deadline < self._timer_deadline:
            self._set_timer(deadline)
        if len(self._heap) > self._sweep_at:
            self._sweep()

    def close(self) -> None:
        """Watches nothing any more."""
        self._heap.clear()
        self._clear_timer()

    def _sweep(self) -> None:
        # Most calls are answered long before they expire: without this, those of the last 30 seconds would pile up.
        self._heap = [item for item in self._heap if not item[2].is_finished]
        heapify(self._heap)
        self._sweep_at = 2 * len(self._heap) + _SPARE

    def _set_timer(self, deadline: float) -> None:
        self._clear_timer()
        self._timer_deadline = deadline
        self._timer = self._loop.call_later(max(deadline - time.monotonic(), 0.0), self._fire)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_deadline = math.inf

    def _fire(self) -> None:
        self._clear_timer()
        now = time.monotonic()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].is_finished):
            call = heappop(self._heap)[2]
            if not call.is_finished:
                self._expire(call)
        if self._heap:
            self._set_timer(self._heap[0][0])


def until(deadline: float) -> float | None:
    """Seconds until a time of time.monotonic(), None if it is infinite."""
    return None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)
