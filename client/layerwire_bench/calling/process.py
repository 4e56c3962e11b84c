"""A client process: opens targets, calls as it is commanded, and reports what it noted, window by window.

It knows loops, targets and the pipe to the process that planned it all; nothing of percentiles or of how runs end.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from layerwire_bench.calling.checker import Checker
from layerwire_bench.calling.loops import ClosedLoop, Loop, OpenLoop, SampleOrder, constant_arrivals, poisson_arrivals
from layerwire_bench.calling.tally import Notes, Tally
from layerwire_bench.calling.timer import timer
from layerwire_bench.plan import Job, TargetSpec
from layerwire_bench.result import Load
from layerwire_bench.targets.factory import make_target
from layerwire_bench.targets.target import Target
from layerwire_bench.workload import Arrays

_PROBE_SECONDS = 0.02  # between looks at how late the event loop is
_DRAIN_SECONDS = 1.0  # beyond the calls' own timeout


@dataclass(frozen=True)
class Begin:
    """Command: a load on a target, from a time of time.monotonic() on."""

    target: int
    load: Load
    start: float
    window_seconds: float


@dataclass(frozen=True)
class End:
    """Command: no further call; what is out is waited for."""


@dataclass(frozen=True)
class Ready:
    """Report: all targets are open, and each sample was answered once."""


@dataclass(frozen=True)
class StartFailure:
    """Report: it can't begin. `code` is a gRPC status, or "" where the request itself is at fault."""

    target: int
    code: str
    message: str


@dataclass(frozen=True)
class WindowReport:
    """Report: a window is over.

    Attributes:
        window: its number from 0.
        notes: calls that ended since the last report.
        first_error: what the first of them that failed said.
        cpu_seconds: processor time of the process in it.
        loop_cpu_seconds: that of the thread of the event loop.
        lags: how late the loop was, in seconds, each time it was asked.
        wrong: answers of the load so far that were not what they should be.
    """

    window: int
    notes: Notes
    first_error: str | None
    cpu_seconds: float
    loop_cpu_seconds: float
    lags: tuple[float, ...]
    wrong: int


@dataclass(frozen=True)
class EndReport:
    """Report: the load is over.

    Attributes:
        notes, first_error: as of a window.
        without_answer: calls that never ended.
        comparisons: answers compared, none where unchecked.
        wrong: answers by entry, none where unchecked.
        first_wrong: how the first of them differed.
        unsent: by window, calls of an open loop that were due and not sent.
    """

    notes: Notes
    first_error: str | None
    without_answer: int
    comparisons: int
    wrong: tuple[int, ...]
    first_wrong: str | None
    unsent: tuple[int, ...] = ()


def main(commands: Connection, reports: Connection, job: Job, process: int, processes: int) -> None:
    """The whole life of the process. Ctrl-C is the planner's business, which then says so by the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner, contextlib.suppress(EOFError, BrokenPipeError):
        runner.run(_ClientProcess(commands, reports, job, process, processes).run())


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _TargetCalls:
    """A target with its calls made ready."""

    def __init__(self, target: Target, job: Job, seed: int) -> None:
        workload = job.workload
        self.target = target
        self.calls = [target.prepare(sample, workload.entries[sample.entry]) for sample in workload.samples]
        self.order = SampleOrder(workload, self.calls, seed)
        self.checker: Checker | None = None  # of the calls that opened it, which the first load's go on with

    async def answer(self, sample: int) -> tuple[Any, str, str]:
        """Of one call."""
        future: asyncio.Future[tuple[Any, str, str]] = asyncio.get_running_loop().create_future()
        self.target.fire(self.calls[sample], lambda *answer: future.set_result(answer))
        return await future


class _ClientProcess:
    def __init__(self, commands: Connection, reports: Connection, job: Job, process: int, processes: int) -> None:
        self._commands = commands  # libuv makes it non-blocking, which a pipe that large reports go by mustn't be
        self._reports = reports
        self._job = job
        self._process = process
        self._processes = processes
        self._targets: list[_TargetCalls] = []
        self._firsts: dict[int, Arrays] = {}
        self._sender = ThreadPoolExecutor(1)  # a pipe that is full must not stop the loop

    async def run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._sender.shutdown)
            for number, spec in enumerate(self._job.targets):
                failure = await self._open(stack, number, spec)
                if failure is not None:
                    await self._report(failure)
                    return
            await self._report(Ready())
            while True:
                command = await self._command()
                if isinstance(command, Begin):
                    await self._report(await self._load(command))

    async def _report(self, report: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._sender, self._reports.send, report)

    async def _command(self) -> Any:
        """The next one; raises EOFError if whoever planned this is gone."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._commands.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._commands.fileno())
        return self._commands.recv()

    async def _open(self, stack: contextlib.AsyncExitStack, number: int, spec: TargetSpec) -> StartFailure | None:
        """Opens a target and has each sample answered once, which finds what can't work before anything is measured."""
        try:
            target = await stack.enter_async_context(make_target(spec, self._job.timeout_seconds))
            ready = _TargetCalls(target, self._job, self._job.seed + self._process)
        except ValueError as error:
            return StartFailure(number, "", str(error))
        checker = ready.checker = self._checker(ready)
        for index in range(len(self._job.workload.samples)):
            answer, code, message = await ready.answer(index)
            if code != "OK":
                return StartFailure(number, code, message)
            if checker is not None:
                checker.compare(index, answer)
        self._targets.append(ready)
        return None

    def _checker(self, calls: _TargetCalls) -> Checker | None:
        if self._job.verify == "off":
            return None
        return Checker(calls.target, self._job.workload.samples, calls.calls, self._job.verify, self._firsts)

    async def _load(self, command: Begin) -> EndReport:
        """One load from its beginning until all its calls ended."""
        calls = self._targets[command.target]
        tally, checker = Tally(), calls.checker or self._checker(calls)
        calls.checker = None
        loop = self._loop(command.load, calls, tally, checker)
        loop.start(command.start)
        tasks = [asyncio.create_task(self._windows(command, tally, checker)), asyncio.create_task(self._command())]
        try:
            done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.stop()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for task in done:
            assert isinstance(task.result(), End)  # or raises what went wrong
        unsent = loop.unsent(command.window_seconds)
        without_answer = await loop.idle(self._job.timeout_seconds + _DRAIN_SECONDS)
        first_error = tally.first_error
        comparisons, wrong, first_wrong = (
            (0, (), None) if checker is None else (checker.comparisons, tuple(checker.wrong), checker.first_wrong)
        )
        return EndReport(tally.take(), first_error, without_answer, comparisons, wrong, first_wrong, unsent)

    def _loop(self, load: Load, calls: _TargetCalls, tally: Tally, checker: Checker | None) -> Loop:
        if load.rate is None:
            assert load.callers is not None
            callers, more = divmod(load.callers, self._processes)
            return ClosedLoop(calls.target, calls.order, tally, checker, callers + (self._process < more))
        return OpenLoop(calls.target, calls.order, tally, checker, self._schedule(load.mode, load.rate))

    def _schedule(self, mode: str, rate: float) -> Iterator[float]:
        if mode == "constant":
            return constant_arrivals(rate, self._process, self._processes)
        return poisson_arrivals(rate, self._process, self._processes, self._job.seed)

    async def _windows(self, command: Begin, tally: Tally, checker: Checker | None) -> None:
        """Reports at the end of each window, until it is cancelled."""
        with contextlib.closing(_LagProbe()) as probe:
            for window in range(1 << 30):
                before = time.process_time(), time.thread_time()
                end = command.start + (window + 1) * command.window_seconds
                await asyncio.sleep(max(end - time.monotonic(), 0.0))
                first_error = tally.first_error
                report = WindowReport(
                    window, tally.take(), first_error, time.process_time() - before[0],
                    time.thread_time() - before[1], probe.take(), 0 if checker is None else sum(checker.wrong),
                )  # fmt: skip
                await self._report(report)


class _LagProbe:
    """How late the event loop comes to what is due, asked by a timer that itself is precise."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._timer = timer(self._ring)
        self._due = 0.0
        self._again()

    def take(self) -> tuple[float, ...]:
        """Since the last time."""
        seconds, self._seconds = tuple(self._seconds), []
        return seconds

    def close(self) -> None:
        """Asks no more."""
        self._timer.close()

    def _again(self) -> None:
        self._due = time.monotonic() + _PROBE_SECONDS
        self._timer.set(self._due)

    def _ring(self) -> None:
        self._seconds.append(time.monotonic() - self._due)
        self._again()
