"""Gives calls to connections, matches them with answers, lets them expire, sends them again; on one event loop.

It knows connections and calls; neither threads nor the operators' names, which are its callers' business.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from copy import copy
from itertools import count
from typing import Any

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
from layerwire.transport.client_memory import LARGE_BYTES, ClientMemory
from layerwire.transport.connection import FRAME_OVERHEAD_BYTES, Connection
from layerwire.transport.deadlines import Deadlines
from layerwire.transport.retry import Budget, Throttle
from layerwire.transport.settings import Settings
from layerwire.transport.templates import AnswerTemplate, CallTemplate, answer_template, single_answer
from layerwire.wire import framing

_FAILURES_BEFORE_ANSWER = 3  # streams that must fail before an address that never answered is given up
_MEMORY_FIELD = "memory"  # of the error of a worker that can't read memory that its gateway shares
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
        self._throttle = Throttle(self._chance)
        self._had_answer = False  # whether an answer ever came
        self.memory: ClientMemory | None = None  # what it shares with its server; read from any thread
        self.connections: list[Connection] = []
        self.resume()

    async def shared_memory(self) -> ClientMemory | None:
        """`memory`, once it is known whether the server shares any."""
        if len(self.connections) != 1:
            return None
        return await self.connections[0].shared_memory()

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
        error = self._throttle.refusal(call.template, time.monotonic()) if self._throttle else None
        if error is None:
            self._place(call)
        elif not self._again(call, error):
            self._finish(call, error)

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

    def on_response(self, connection: Connection, frame: bytes | memoryview) -> None:
        """Connection: a StreamResponse came. Ids that nobody waits for are passed over."""
        self._had_answer = True
        now = time.monotonic()
        singles, groups, memory = framing.answers(frame)
        pop = connection.sent_calls.pop
        if memory is not None:
            connection.on_memory(memory)
        for group in groups:
            calls = [pop(call_id, None) for call_id in group.ids]
            pieces = connection.end_loans(group) if connection.loans else group.data
            template = answer_template(group.template)
            connection.frame_interval.observe_answer(group.ids, now, success=template.result != "status")
            self._on_answers(calls, template, pieces)
        for single in singles:
            call_id, answer, data = single_answer(single)
            connection.loans.pop(call_id, None)
            connection.frame_interval.observe_answer((call_id,), now, success=answer.result != "status")
            self._on_answers([pop(call_id, None)], answer, data)

    def _on_answers(
        self, calls: Sequence[Call | None], answer: AnswerTemplate, data: Sequence[bytes | memoryview]
    ) -> None:
        """Ends calls that were answered alike, in the order of their data; None for those that nobody waits for."""
        if answer.result == "status":
            self._on_errors(calls, answer)
            return
        results: dict[CallTemplate, list[Any] | Exception] = {}  # nearly always of one template
        ncalls = nbytes = 0
        for row, call in enumerate(calls):
            if call is None:
                continue
            values = results.get(call.template)
            if values is None:
                values = results[call.template] = _values(call.template, answer, len(calls), data)
            ncalls += 1
            nbytes += call.nbytes
            if data and len(data[0]) >= LARGE_BYTES:
                call.template.answer_sizes = tuple(map(len, data)) if len(calls) == 1 else ()
            promise = call.finish()
            if promise.done():
                continue
            if isinstance(values, list):
                promise.set_result(values[row])
            else:  # whatever it is, it is these callers', not the neighbours'
                promise.set_exception(copy(values))
        if ncalls:
            self.admission.leave(ncalls, nbytes)
            if self._throttle:
                for template, number in Counter(call.template for call in calls if call is not None).items():
                    self._throttle.observe_answers(template, number, time.monotonic())

    def _on_errors(self, calls: Sequence[Call | None], answer: AnswerTemplate) -> None:
        """Ends calls that an error was answered to, or sends them again."""
        for call in calls:
            if call is None:
                continue
            error = call.template.error(answer)
            self._throttle.observe_refusal(call.template, error, time.monotonic())
            if error.field == _MEMORY_FIELD and call.nbytes >= LARGE_BYTES and not call.tries and call.connection:
                call.connection.end_sharing()
                call.tries += 1
                call.connection = None
                self._resume(call)
            elif not self._again(call, error):
                self._finish(call, error)

    def on_memory(self, connection: Connection, memory: ClientMemory | None) -> None:
        """Connection: this is what the server shares from now on; with several, calls are put there as they leave."""
        self.memory = memory if len(self.connections) == 1 else None

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

    def _again(self, call: Call, error: LayerwireError) -> bool:
        """Whether a call that an error was answered to is sent again, later."""
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
        if call.connection is not None:
            call.connection.give_up(call)
        self._retries.discard(call)
        promise = call.finish()
        self.admission.leave(1, call.nbytes)
        if not promise.done():
            promise.set_exception(error)


def _values(
    template: CallTemplate, answer: AnswerTemplate, count: int, data: Sequence[bytes | memoryview]
) -> list[Any] | Exception:
    """What calls of a template return, or why they can't."""
    try:
        return template.values(answer, count, data)
    except LayerwireError as error:
        error.operator = error.operator or template.function
        return error
    except Exception as error:  # no memory, or a device that is gone
        return error


def until(deadline: float) -> float | None:
    """Seconds until a time of time.monotonic(), None if it is infinite."""
    return None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)
