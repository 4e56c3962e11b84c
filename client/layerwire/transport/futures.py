"""What a thread holds until its answer is there: a bare waiter for blocking calls, a future for `submit`.

It knows threads; neither calls nor channels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


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


class CallFuture(Future[Any]):
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

    def set_result(self, result: Any, /) -> None:
        """Keeps the answer, unless it was cancelled."""
        self._give_up = None
        if self.set_running_or_notify_cancel():
            super().set_result(result)

    def set_exception(self, exception: BaseException | None, /) -> None:
        """Keeps the error, unless it was cancelled."""
        self._give_up = None
        if self.set_running_or_notify_cancel():
            super().set_exception(exception)
