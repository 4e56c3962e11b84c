"""Takes a request from the caller's thread or task to the engine's loop, and its answer back.

It knows engines, threads and loops; no operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, NoReturn, TypeVar

from layerwire.calls import MapRequest, Request
from layerwire.errors import ClientClosedError, ClientStateError, DeadlineExceededError
from layerwire.transport import background
from layerwire.transport.call import Call
from layerwire.transport.call_map import CallMap
from layerwire.transport.connection import MAX_FRAME_CALLS
from layerwire.transport.engine import Engine, until
from layerwire.transport.options import Options
from layerwire.transport.settings import Settings

Value = TypeVar("Value")


class Session:
    """A client's settings, and its engine once there is one.

    A forked child finds none of its parent's threads, so the first use there makes a new engine.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine: Engine | None = None
        self._closed = False
        self._forks = background.forks()

    def __str__(self) -> str:
        return ", ".join(self._settings.addresses) + (" (closed)" if self._closed else "")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client can't be pickled or deeply copied: make one where it is used")

    def _check(self) -> None:
        if self._closed:
            raise ClientClosedError("the client is closed")


class ThreadSession(Session):
    """A client's engine on the process's background thread, for callers in any other thread."""

    def engine(self) -> Engine:
        """The engine of this process.

        Raises:
            ClientClosedError: the client is closed.
            ClientStateError: gRPC didn't survive the fork that made this process.
        """
        engine = self._engine
        if engine is None or self._forks != background.forks():
            engine = background.with_lock(self._make)
        return engine

    def call(self, request: Request, options: Options) -> Any:
        """The answer of a call; interrupted, the call is given up."""
        engine = self.engine()
        waiter = Waiter()
        call = Call(request, options, waiter, engine.memory)
        engine.check(call)
        if background.is_here():
            raise ClientStateError(f"{call.function}: a blocking call in a future's callback would wait for itself")
        self._enter(engine, call)
        engine.post(call)
        try:
            return waiter.wait()
        except BaseException:
            if not call.is_finished:
                engine.loop.call_soon_threadsafe(engine.cancel, call)
            raise

    def submit(self, request: Request, options: Options) -> CallFuture[Any]:
        """A future of a call's answer. Waits first where as much is in flight as may be."""
        engine = self.engine()
        future: CallFuture[Any] = CallFuture()
        call = Call(request, options, future, engine.memory)
        engine.check(call)
        self._enter(engine, call)
        future.on_cancel(lambda: self._cancel(engine, call))  # the future keeps the client too until it is answered
        engine.post(call)
        return future

    def map(self, request: MapRequest, options: Options) -> list[Any]:
        """The answers of many calls, in their order; interrupted, those without one are given up."""
        engine = self.engine()
        waiter = Waiter()
        calls = CallMap(request, options, waiter)
        if background.is_here():
            raise ClientStateError(f"{request.request.function}: a map in a future's callback would wait for itself")
        try:
            for row in range(request.calls):
                self._check()
                try:
                    call = calls.call(row)
                    engine.check(call)
                    self._enter(engine, call)
                except Exception as error:
                    engine.loop.call_soon_threadsafe(calls.end, row, error)
                else:
                    engine.post(call)
            waiter.wait()
        except BaseException:
            if not engine.loop.is_closed():
                engine.loop.call_soon_threadsafe(_cancel_all, engine, calls)
            raise
        return calls.results()

    def run(self, work: Callable[[Engine], Awaitable[Value]]) -> Value:
        """What a coroutine on the engine's loop returns."""
        engine = self.engine()
        if background.is_here():
            raise ClientStateError("a blocking call in a future's callback would wait for itself")

        async def work_on_loop() -> Value:
            return await work(engine)

        future = asyncio.run_coroutine_threadsafe(work_on_loop(), engine.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Gives up all calls and ends the connections."""
        engine, self._engine, self._closed = self._engine, None, True
        if engine is not None and self._forks == background.forks():
            background.with_lock(lambda: background.close(engine))

    def _make(self) -> Engine:
        self._check()
        if self._engine is None or self._forks != background.forks():
            self._engine = background.make(self._settings)
            self._forks = background.forks()
            weakref.finalize(self, background.abandon, self._engine, self._forks).atexit = False
        return self._engine

    @staticmethod
    def _cancel(engine: Engine, call: Call) -> None:
        if not engine.loop.is_closed():
            engine.loop.call_soon_threadsafe(engine.cancel, call)

    @staticmethod
    def _enter(engine: Engine, call: Call) -> None:
        if engine.admission.enter(call.nbytes):
            return
        if background.is_here():  # a callback that submits: making it wait would stop the answers that make room
            engine.admission.force(call.nbytes)
            return
        admission = threading.Event()
        ticket = engine.admission.queue(call.nbytes, admission.set)
        is_admitted = False
        try:
            is_admitted = admission.wait(until(call.deadline))
        finally:
            if not is_admitted:
                engine.admission.give_up(ticket)
        if not is_admitted:
            raise _no_room(call)


class LoopSession(Session):
    """A client's engine on the event loop of its first call, for the tasks of that loop."""

    def engine(self) -> Engine:
        """The engine of this process, made at first use.

        Raises:
            ClientClosedError: the client is closed.
            ClientStateError: it belongs to another loop, or gRPC didn't survive the fork that made this process.
        """
        loop = asyncio.get_running_loop()
        engine = self._engine
        if engine is None or self._forks != background.forks():
            engine = self._make()
        if engine.loop is not loop:
            raise ClientStateError("this AsyncClient belongs to another event loop: make one for each")
        return engine

    async def call(self, request: Request, options: Options) -> Any:
        """The answer of a call; cancelled, the call is given up."""
        engine = self.engine()
        future = engine.loop.create_future()
        call = Call(request, options, future, engine.memory)
        engine.check(call)
        if not engine.admission.enter(call.nbytes):
            await self._enter(engine, call)
        engine.submit(call)
        try:
            return await future
        except asyncio.CancelledError:
            engine.cancel(call)
            raise

    async def map(self, request: MapRequest, options: Options) -> list[Any]:
        """The answers of many calls, in their order; cancelled, those without one are given up."""
        engine = self.engine()
        future = engine.loop.create_future()
        calls = CallMap(request, options, future)
        try:
            for row in range(request.calls):
                if row % MAX_FRAME_CALLS == MAX_FRAME_CALLS - 1:
                    await asyncio.sleep(0)  # a frame can leave
                self._check()
                try:
                    call = calls.call(row)
                    engine.check(call)
                    if not engine.admission.enter(call.nbytes):
                        await self._enter(engine, call)
                except Exception as error:  # this call's alone
                    calls.end(row, error)
                else:
                    engine.submit(call)
            await future
        except BaseException:
            _cancel_all(engine, calls)
            raise
        return calls.results()

    async def run(self, work: Callable[[Engine], Awaitable[Value]]) -> Value:
        """What a coroutine on the engine returns."""
        return await work(self.engine())

    async def close(self) -> None:
        """Gives up all calls and ends the connections."""
        engine, is_forked = self._engine, self._forks != background.forks()
        if engine is not None and not is_forked and not engine.loop.is_closed():
            if engine.loop is not asyncio.get_running_loop():
                raise ClientStateError("this AsyncClient belongs to another event loop: close it there")
            self._engine, self._closed = None, True
            await engine.close()
            background.remove_foreign(engine)
        self._closed = True

    def _make(self) -> Engine:
        self._check()
        background.check_fork()
        self._engine = engine = Engine(self._settings)
        self._forks = background.forks()
        background.add_foreign(engine)
        weakref.finalize(self, _abandon, engine, self._forks).atexit = False
        return engine

    @staticmethod
    async def _enter(engine: Engine, call: Call) -> None:
        admission = engine.loop.create_future()

        def admit() -> None:
            if not admission.done():
                admission.set_result(None)

        ticket = engine.admission.queue(call.nbytes, admit)
        try:
            async with asyncio.timeout(None if call.deadline == math.inf else until(call.deadline)):
                await admission
        except TimeoutError:
            engine.admission.give_up(ticket)
            raise _no_room(call) from None
        except BaseException:
            engine.admission.give_up(ticket)
            raise


def _cancel_all(engine: Engine, calls: CallMap) -> None:
    """Gives up what nobody waits for any more."""
    for call in calls.unfinished_calls():
        engine.cancel(call)


def _abandon(engine: Engine, fork_count: int) -> None:
    """Closes the engine of an AsyncClient that was dropped without `close`, when its loop runs next."""

    async def close() -> None:
        await engine.close()
        background.remove_foreign(engine)

    if fork_count == background.forks() and engine.connections and not engine.loop.is_closed():
        with contextlib.suppress(RuntimeError):  # the loop closed meanwhile
            engine.loop.call_soon_threadsafe(lambda: _close_tasks.add(engine.loop.create_task(close())))


_close_tasks: weakref.WeakSet[asyncio.Task[None]] = weakref.WeakSet()


def _no_room(call: Call) -> DeadlineExceededError:
    return DeadlineExceededError(
        f"{call.function}: no room within the timeout: max_calls_in_flight or max_bytes_in_flight are unanswered",
        operator=call.function,
    )


class Waiter:
    """A result that one thread waits for, once. A tenth of the cost of concurrent.futures.Future."""

    __slots__ = ("_error", "_lock", "_result")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._result: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether the result is there."""
        return not self._lock.locked()

    def set_result(self, result: Any, /) -> None:
        """Lets the thread go on with a value."""
        self._result = result
        self._lock.release()

    def set_exception(self, exception: BaseException, /) -> None:
        """Lets the thread go on with an error."""
        self._error = exception
        self._lock.release()

    def wait(self) -> Any:
        """The value, or the error raised."""
        self._lock.acquire()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # or the error's traceback would hold this frame, and this frame the error
        return self._result


class CallFuture(Future[Value]):
    """The answer of a submitted call: a concurrent.futures.Future, with `cancel` giving up the call on the server."""

    def __init__(self) -> None:
        super().__init__()
        self._give_up: Callable[[], None] | None = None

    def on_cancel(self, give_up: Callable[[], None]) -> None:
        """What `cancel` calls, from whatever thread."""
        self._give_up = give_up

    def cancel(self) -> bool:
        """Gives up the call; False if the answer is there already."""
        cancelled = super().cancel()
        give_up, self._give_up = self._give_up, None
        if cancelled and give_up is not None:
            give_up()
        return cancelled

    def set_result(self, result: Value, /) -> None:
        """Keeps the answer, unless it was cancelled."""
        self._give_up = None
        if self.set_running_or_notify_cancel():
            super().set_result(result)

    def set_exception(self, exception: BaseException | None, /) -> None:
        """Keeps the error, unless it was cancelled."""
        self._give_up = None
        if self.set_running_or_notify_cancel():
            super().set_exception(exception)
