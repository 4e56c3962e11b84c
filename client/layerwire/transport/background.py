"""The one thread of a process on which blocking clients' engines run, its event loop, and what a fork does to them.

It knows threads, loops and forks; neither calls nor operators.

A fork takes along only the thread that forks. gRPC mends itself in the child if none of its threads is at work in that
moment, and one of grpc.aio's always is while there is a channel. So before a fork the engines here end their
connections and keep their calls; after it they connect again in the parent, and in the child at a client's first use.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any

from layerwire.errors import ClientStateError
from layerwire.transport.engine import Engine
from layerwire.transport.settings import Settings

_PAUSE_SECONDS = 2.0
_LOOK_SECONDS = 0.002


class _State:
    """What a process has of this; a forked child starts with none of it."""

    def __init__(self, forks: int, obstacle: str = "") -> None:
        self.forks = forks
        self.obstacle = obstacle
        self.lasting_obstacle = obstacle  # stays for all children: what one fork broke, the next doesn't mend
        self.lock = threading.RLock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None
        self.engines: set[Engine] = set()
        self.had_engine = False  # whether there ever was an engine, here or elsewhere


_state = _State(0)
_foreign_engines: weakref.WeakSet[Engine] = weakref.WeakSet()  # engines on loops of others, which can't be paused


def forks() -> int:
    """How many forks lie between this process and the one that imported this."""
    return _state.forks


def with_lock(action: Callable[[], Any]) -> Any:
    """What `action` returns, run while no engine is made or closed and no fork happens."""
    with _state.lock:
        return action()


def is_here() -> bool:
    """Whether this is the background thread."""
    return threading.current_thread() is _state.thread


def check_fork() -> None:
    """Whether gRPC can be used in this process.

    Raises:
        ClientStateError: it is a child of a fork that gRPC didn't survive.
    """
    if _state.obstacle:
        raise ClientStateError(
            f"this process was forked while {_state.obstacle}, which gRPC does not survive: use spawn"
        )


def make(settings: Settings) -> Engine:
    """An engine on the background loop, which starts with the first; raises as `check_fork`."""
    check_fork()

    async def new_engine() -> Engine:
        return Engine(settings)

    engine = asyncio.run_coroutine_threadsafe(new_engine(), _loop()).result()
    _state.had_engine = True
    _state.engines.add(engine)
    return engine


def close(engine: Engine) -> None:
    """Closes an engine and waits for it."""
    _state.engines.discard(engine)
    closed = asyncio.run_coroutine_threadsafe(engine.close(), engine.loop)
    if not is_here():
        closed.result()


def abandon(engine: Engine, fork_count: int) -> None:
    """Closes the engine of a client that was dropped without `close`, unless it is of a process before the fork."""
    if fork_count == forks() and engine in _state.engines:
        _state.engines.discard(engine)
        asyncio.run_coroutine_threadsafe(engine.close(), engine.loop)


def add_foreign(engine: Engine) -> None:
    """Takes note of an engine on a loop of the user's, which stands in the way of a fork until it is closed."""
    _foreign_engines.add(engine)
    _state.had_engine = True


def remove_foreign(engine: Engine) -> None:
    """Such an engine was closed."""
    _foreign_engines.discard(engine)


def _loop() -> asyncio.AbstractEventLoop:
    if _state.loop is None:
        _state.loop = _new_loop()
        _state.loop.set_exception_handler(_on_exception)
        _state.thread = threading.Thread(target=_run, args=(_state.loop,), name="layerwire", daemon=True)
        _state.thread.start()
    return _state.loop


def _new_loop() -> asyncio.AbstractEventLoop:
    """One of uvloop where that is installed, as beside a server: a lone call costs a quarter less CPU (measured)."""
    try:
        import uvloop  # type: ignore[import-not-found,unused-ignore]  # the server's, not the SDK's
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _on_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # With a second loop in the process, grpc.aio's completion queue wakes both by one socket, and the slower finds it
    # empty (grpc/grpc#25364). Nothing is lost by it.
    if isinstance(context.get("exception"), BlockingIOError) and "PollerCompletionQueue" in str(context.get("handle")):
        return
    loop.default_exception_handler(context)


def _on_loop(work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work was done on the background loop, in time."""
    assert _state.loop is not None
    future = asyncio.run_coroutine_threadsafe(work, _state.loop)
    try:
        future.result(_PAUSE_SECONDS)
    except (TimeoutError, CancelledError):
        future.cancel()
        return False
    return True


async def _pause() -> None:
    await asyncio.gather(*(engine.pause() for engine in _state.engines))
    # Until the loop has run what gRPC left there; longer only if the channel isn't ours. Nothing tells when that is.
    while _channel_left():
        await asyncio.sleep(_LOOK_SECONDS)


def _channel_left() -> bool:
    """Whether grpc.aio has a channel, and by it a thread. Its calls are cycles that keep their channel."""
    if not _state.had_engine:
        return False
    gc.collect()
    return any(type(thing).__name__ == "AioChannel" for thing in gc.get_objects())


async def _resume() -> None:
    for engine in _state.engines:
        engine.resume()


def _before_fork() -> None:
    _state.lock.acquire()
    _state.obstacle = _state.lasting_obstacle
    if _state.lasting_obstacle:
        return
    if any(not engine.loop.is_closed() for engine in _foreign_engines):
        _state.obstacle = "an AsyncClient was connected"
    elif is_here():
        _state.obstacle = "on a client's own thread"
    elif not (_on_loop(_pause()) if _state.loop is not None else not _channel_left()):
        _state.obstacle = "a channel of grpc.aio was there"


def _after_fork_in_parent() -> None:
    if _state.engines and not is_here():
        _on_loop(_resume())
    _state.obstacle = _state.lasting_obstacle
    _state.lock.release()


def _after_fork_in_child() -> None:
    global _state  # noqa: PLW0603  # the process's own, and this is another process
    _foreign_engines.clear()
    _state = _State(_state.forks + 1, _state.obstacle)


async def _finish() -> None:
    """Lets grpc.aio's own tasks end, which outlive their calls by a turn of the loop and complain if it is the last."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    if rest:
        await asyncio.wait(rest)


@atexit.register
def _at_exit() -> None:
    for engine in list(_state.engines):
        close(engine)
    if _state.loop is not None and _state.thread is not None:
        _on_loop(_finish())
        _state.loop.call_soon_threadsafe(_state.loop.stop)
        _state.thread.join()
        _state.loop.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
