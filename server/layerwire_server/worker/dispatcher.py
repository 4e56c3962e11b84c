"""Takes batches from the lanes, runs them, and hands results to replies; expires calls and watches for hangs.

It knows lanes, execution and replies; nothing of frames' contents. It runs on the worker's event loop.

A batch that is expected to be short runs on the loop's own thread: handing it to another costs more than it does. A
long one runs on a device thread, so that the loop goes on reading, expiring and cancelling meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from layerwire.errors import DeadlineExceededError, LayerwireError
from layerwire_server.worker.answering.reply import BatchTiming, Reply
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.lanes.lanes import Lanes
from layerwire_server.worker.measures import Measures
from layerwire_server.worker.running.device import Device
from layerwire_server.worker.running.execution import DeviceLostError, Execution, execute

GATHER_SECONDS = 0.001  # a message of answers costs gateway and client as much as 50 answers in it
INLINE_SECONDS = 0.002  # a hand-over between threads costs 0.05 to 0.2 ms; 2 ms of a deaf loop harm no deadline
_GUESSED_OPERATIONS_PER_SECOND = 5e10  # before a lane's first batch
_GUESSED_BYTES_PER_SECOND = 1e9
_LOST_STATUS = 70  # exit status where the device is lost or hangs

log = logging.getLogger(__name__)


class Dispatcher:
    """Owner of a worker's lanes and device.

    Args:
        index: the worker's number.
        send: called with each reply that got answers.
        on_batch: called with each batch that ran.
        hang_seconds: a batch that takes longer than this, and ten times what was expected, ends the process.
    """

    def __init__(
        self,
        index: int,
        device: Device,
        lanes: Lanes[CallGroup],
        measures: Measures,
        send: Callable[[Reply], None],
        on_batch: Callable[[Batch[CallGroup]], None],
        hang_seconds: float,
    ) -> None:
        self._index = index
        self._device = device
        self._lanes = lanes
        self._measures = measures
        self._send = send
        self._on_batch = on_batch
        self._hang_seconds = hang_seconds
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(device.slots, thread_name_prefix="device")
        self._batches: dict[int, float] = {}  # batches on device threads: number -> when the loop gives up on them
        self._number = 0
        self._is_paused = False
        self._pump_is_due = False
        self._unsent: dict[Reply, None] = {}  # with answers that wait for others of their caller
        self._unsent_since = 0.0
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # its time.monotonic(): below 0.5 ms uvloop gives a handle that can't tell

    @property
    def busy(self) -> bool:
        """Whether the device has all it takes."""
        return self._is_paused or len(self._batches) >= self._device.slots

    def pause(self) -> None:
        """Takes no more batches from lanes; `run_alone` works all the same."""
        self._is_paused = True

    def resume(self) -> None:
        """Takes batches from lanes again."""
        self._is_paused = False
        self.wake()

    async def run_alone(self, call: CallGroup) -> None:
        """Runs a call that never was in a lane, on a device thread, and gives its reply the answer."""
        launch_time = time.monotonic()
        batch: Batch[CallGroup] = Batch(call.key, [call], call.rows, call.cost, "single")
        number = self._begin(launch_time, _expected_seconds(batch))
        try:
            execution = await self._loop.run_in_executor(self._threads, execute, self._device, batch.key, batch.calls)
        except DeviceLostError as error:
            self._end(error)
        del self._batches[number]
        self._deliver(batch, launch_time, execution)
        self._send_unsent()

    async def on_thread(self, work: Callable[[], bool]) -> bool:
        """What `work` gives, run where batches run."""
        if self._device.inline:
            return work()
        return await self._loop.run_in_executor(self._threads, work)

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Runs a piece of work on a device thread, between batches; from any thread."""
        return self._threads.submit(work)

    def close(self) -> None:
        """Ends the device's threads, once idle."""
        if self._timer is not None:
            self._timer.cancel()
        self._threads.shutdown()

    def wake(self) -> None:
        """Looks at the lanes soon; other events first."""
        if not self._pump_is_due:
            self._pump_is_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        now = time.monotonic()
        self._expire(now)
        while not self.busy:
            batch = self._lanes.take(now)
            if self._lanes.has_late:
                self._expire(now)
            if batch is None:
                break
            self._measures.count_close(batch)
            expected_seconds = _expected_seconds(batch)
            if self._device.inline and expected_seconds < INLINE_SECONDS:
                try:
                    execution = execute(self._device, batch.key, batch.calls)
                except DeviceLostError as error:
                    self._end(error)
                self._deliver(batch, now, execution)
                self._lanes.observe(batch, time.monotonic())
                if self._lanes.calls:
                    self.wake()  # other events first, then the next batch
                break
            self._send_unsent()
            self._launch(batch, now, expected_seconds)
        if not self._pump_is_due or time.monotonic() - self._unsent_since >= GATHER_SECONDS:
            self._send_unsent()
        self._set_timer(now)

    def _launch(self, batch: Batch[CallGroup], launch_time: float, expected_seconds: float) -> None:
        number = self._begin(launch_time, expected_seconds)

        def on_done(future: Future[Execution]) -> None:
            self._loop.call_soon_threadsafe(self._on_return, number, batch, launch_time, future)

        self._threads.submit(execute, self._device, batch.key, batch.calls).add_done_callback(on_done)

    def _begin(self, launch_time: float, expected_seconds: float) -> int:
        self._number += 1
        self._batches[self._number] = launch_time + max(self._hang_seconds, 10 * expected_seconds)
        return self._number

    def _on_return(self, number: int, batch: Batch[CallGroup], launch_time: float, future: Future[Execution]) -> None:
        del self._batches[number]
        try:
            execution = future.result()
        except DeviceLostError as error:
            self._end(error)
        self._deliver(batch, launch_time, execution)
        self._lanes.observe(batch, time.monotonic())
        self._pump()

    def _deliver(self, batch: Batch[CallGroup], launch_time: float, execution: Execution) -> None:
        """Gives replies the answers of a batch that ran, which leave with those of others that their caller awaits."""
        seconds = execution.phases.seconds
        self._lanes.charge(batch, seconds)
        batch.key.pace.observe(batch.rows, seconds, launch_time)
        if execution.bearable_rows is not None:
            self._lanes.bear_at_most(batch.key, execution.bearable_rows)
        if execution.calls is not batch.calls:
            for call in batch.calls:
                call.reply.forget(call)
            batch = batch._replace(calls=list(execution.calls))
        timing = BatchTiming(launch_time, batch.call_count, batch.rows, self._index, self._device.name)
        if not self._unsent:
            self._unsent_since = launch_time
        for index, (call, result) in enumerate(zip(batch.calls, execution.results, strict=True)):
            reply: Reply = call.reply
            if reply.is_dropped:
                continue
            try:
                if isinstance(result, LayerwireError):
                    raise result
                reply.answer(call, result, execution.phases, timing)
            except LayerwireError as error:
                execution.results[index] = error
                self._measures.count_failure(call, error, call.count)
                reply.fail(call, error)
            self._unsent[reply] = None
        if not self._lanes.has_calls_of(batch.calls[-1].caller):
            self._send_unsent()
        self._measures.count_batch(batch, launch_time, execution)
        self._on_batch(batch)

    def _send_unsent(self) -> None:
        if self._unsent:
            replies, self._unsent = self._unsent, {}
            self._send_all([reply for reply in replies if not reply.is_dropped])

    def _expire(self, now: float) -> None:
        calls = self._lanes.expire(now)
        if not calls:
            return
        replies: dict[Reply, None] = {}
        for call in calls:
            error = deadline_error(call)
            self._measures.count_failure(call, error, call.count)
            call.reply.fail(call, error)
            replies[call.reply] = None
        self._send_all(replies)

    def _send_all(self, replies: Collection[Reply]) -> None:
        links = {reply.link for reply in replies} if len(replies) > 1 else ()
        for link in links:
            link.cork()
        for reply in replies:
            self._send(reply)
        for link in links:
            link.uncork()

    def _set_timer(self, now: float) -> None:
        if not self._lanes.calls:
            return  # a timer that is set finds nothing
        wake = self._lanes.wake_at(now)
        if self._timer is not None:
            if self._timer_at <= wake:
                return
            self._timer.cancel()
            self._timer = None
        if wake < now + 3600:
            self._timer = self._loop.call_later(max(wake - now, 0.0), self._on_timer)
            self._timer_at = wake

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()

    async def watch(self) -> None:
        """Ends the process if the device doesn't come back from a batch."""
        while True:
            await asyncio.sleep(min(1.0, self._hang_seconds / 4))
            if self._batches and min(self._batches.values()) < time.monotonic():
                self._end(DeviceLostError("a batch doesn't come back"))

    def _end(self, error: DeviceLostError) -> Any:
        log.critical("device %s is lost, the process ends: %s", self._device.name, error)
        logging.shutdown()
        os._exit(_LOST_STATUS)


def _expected_seconds(batch: Batch[CallGroup]) -> float:
    seconds: float = batch.key.pace.batch_seconds + batch.key.pace.row_seconds * batch.rows
    if seconds:
        return seconds
    nbytes = sum(call.nbytes * call.count for call in batch.calls)
    return batch.cost / _GUESSED_OPERATIONS_PER_SECOND + nbytes / _GUESSED_BYTES_PER_SECOND


def deadline_error(call: CallGroup) -> DeadlineExceededError:
    """The error of calls whose time is up."""
    title = call.plan.operator.title
    return DeadlineExceededError(f"{title}: the deadline passed before the call ran", operator=title)
