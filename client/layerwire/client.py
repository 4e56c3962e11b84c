"""Client, whose methods block their thread, and AsyncClient, whose methods are awaited; their calls are the same.

It knows what callers see; how calls travel is the engine's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from layerwire.calls import Calls, Request, Requests
from layerwire.client_methods import AwaitableMapMethods, AwaitableView, BlockingView, MapMethods, SubmittedMethods
from layerwire.store_methods import AwaitableStoreMethods, BlockingStoreMethods
from layerwire.transport import rpc
from layerwire.transport.client_memory import ClientMemory
from layerwire.transport.options import Options, seconds
from layerwire.transport.rpc import Estimate
from layerwire.transport.sessions import LoopSession, Session, ThreadSession
from layerwire.transport.settings import (
    DEFAULT_MAX_BYTES_IN_FLIGHT,
    DEFAULT_MAX_CALLS_IN_FLIGHT,
    DEFAULT_MAX_MESSAGE_BYTES,
    Metadata,
    Settings,
    make_settings,
)
from layerwire.transport.tls import Tls
from layerwire.v1 import layerwire_pb2 as messages

_UNCHANGED: Any = object()


class WithOptions(ABC):
    """Methods whose calls have options, and a way to views of them with others."""

    _options: Options

    @abstractmethod
    def _view(self, options: Options) -> Any:
        """The same methods with other options."""

    def options(
        self,
        *,
        timeout: float | None = _UNCHANGED,
        priority: int = _UNCHANGED,
        deterministic: bool = _UNCHANGED,
        timing: bool = _UNCHANGED,
    ) -> Any:
        """The same methods, whose calls are treated otherwise: `lw.options(priority=3).relu(x)`.

        Args:
            timeout: seconds until an answer is no longer wanted; None: never.
            priority: which of the waiting calls goes first, -10 to 10; larger is sooner.
            deterministic: whether answers are bit-identical whatever other calls share the batch.
            timing: whether calls return `Timed`: `y, timing = lw.options(timing=True).relu(x)`.
        """
        arguments: dict[str, Any] = {
            "timeout": timeout,
            "priority": priority,
            "deterministic": deterministic,
            "timing": timing,
        }
        changes = {name: value for name, value in arguments.items() if value is not _UNCHANGED}
        return self._view(replace(self._options, **changes))


class BlockingCalls(BlockingView, WithOptions):
    """Operators as methods that return the answer. Any number of threads may share it.

    Attributes:
        submit: the same methods, which return a future: `futures = [lw.submit.relu(x) for x in many]`. The futures are
            those of concurrent.futures. Where as much is unanswered as the client allows, a method waits until there is
            room. Callbacks run on the thread that answers come by and must not wait for other calls.
        map: the same methods for many calls at once, `rows = lw.map.relu(arrays)`, without a future each: see MapCalls.
    """

    def __init__(self, session: ThreadSession, options: Options) -> None:
        super().__init__(partial(session.call, options=options))
        self.submit = SubmittedMethods(partial(session.submit, options=options))
        self.map = MapMethods(partial(session.map, options=options))
        self._session = session
        self._options = options

    def _view(self, options: Options) -> BlockingCalls:
        return BlockingCalls(self._session, options)


class AwaitableCalls(AwaitableView, WithOptions):
    """Operators as methods to be awaited. Any number of tasks of one event loop may share it.

    Attributes:
        map: the same methods for many calls at once, `rows = await lw.map.relu(arrays)`: see MapCalls.
    """

    def __init__(self, session: LoopSession, options: Options) -> None:
        super().__init__(partial(session.call, options=options))
        self.map = AwaitableMapMethods(partial(session.map, options=options))
        self._session = session
        self._options = options

    def _view(self, options: Options) -> AwaitableCalls:
        return AwaitableCalls(self._session, options)


class Connectable(ABC):
    """The constructor of both clients."""

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        timeout: float | None = 30.0,
        token: str | None = None,
        tls: Tls = None,
        metadata: Metadata | None = None,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        max_calls_in_flight: int = DEFAULT_MAX_CALLS_IN_FLIGHT,
        max_bytes_in_flight: int = DEFAULT_MAX_BYTES_IN_FLIGHT,
        retries: int = 2,
        shared_memory: Literal["auto", "off"] = "auto",
    ) -> None:
        settings = make_settings(
            address, token, tls, metadata, shared_memory,
            max_message_bytes=max_message_bytes, max_calls_in_flight=max_calls_in_flight,
            max_bytes_in_flight=max_bytes_in_flight, max_retries=retries,
        )  # fmt: skip
        self._own_session = self._make_session(settings, Options(timeout))

    @abstractmethod
    def _make_session(self, settings: Settings, options: Options) -> Session:
        """The session, in which nothing is connected yet, once the methods are on it."""

    def __repr__(self) -> str:
        return f"<layerwire.{type(self).__name__} of {self._own_session}>"


class Client(Connectable, BlockingStoreMethods, BlockingCalls):
    """A client whose methods return the answer, for threads; `submit` has the same methods for futures.

    Calls of all threads travel together on one connection an address. Use it as a context manager, or `close` it.

    Args:
        address: "host:port", or several among which calls go round; one that is broken or not serving is left out.
        timeout: seconds until an answer is no longer wanted, for calls that say nothing else; None: never.
        token: sent as "authorization: Bearer ..."; a ValueError without TLS, except to this host itself. None: that of
            the variable LAYERWIRE_CLIENT_TOKEN, of the file that LAYERWIRE_CLIENT_TOKEN_FILE names, or the one for this
            address in ~/.config/layerwire.toml, if there is one; "": none.
        tls: True for the system's authorities, a path to a CA's certificates, `TLS` for a certificate of the client's
            own too, or grpc.ChannelCredentials. None: by variables LAYERWIRE_CLIENT_TLS, _TLS_CA, _TLS_CERTIFICATE,
            _TLS_KEY and _TLS_SERVER_NAME, or that file, else a plain connection; False: a plain one.
        metadata: further metadata of each connection.
        max_message_bytes: largest message, either way.
        max_calls_in_flight: calls that may be unanswered; further ones wait their turn.
        max_bytes_in_flight: bytes of calls that may be unanswered; further ones wait their turn.
        retries: times that a call is sent again when the server asks for it; 0 also for broken connections.
        shared_memory: "auto": large tensors go by memory that is shared with a server on this host, where it can be
            had; "off": all go by gRPC.

    Raises:
        TypeError, ValueError, OSError: an argument is wrong, or a certificate's file can't be read. Nothing is
            connected before the first call.
    """

    def _make_session(self, settings: Settings, options: Options) -> ThreadSession:
        BlockingCalls.__init__(self, ThreadSession(settings), options)
        return self._session

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Waits until a server says that it serves.

        Raises:
            DeadlineExceededError: none did within `timeout` seconds; the message has the reason.
        """
        limit = seconds(timeout)
        self._session.run(lambda engine: rpc.wait_ready(engine, limit))

    def server_info(self) -> messages.GetServerInfoResponse:
        """Versions, devices, limits and operators of the server; of one of them, where there are several."""
        return self._session.run(lambda engine: rpc.server_info(engine, self._options.timeout))

    def estimate(self, function: str, /, *args: Any, **kwargs: Any) -> Estimate:
        """What a call would cost, without running it: `lw.estimate("conv2d", x, w, padding=1)`."""
        request = _request(function, args, kwargs)
        return self._session.run(lambda engine: rpc.estimate(engine, request, self._options))

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """An array to fill and send, not initialised: in memory shared with the server, so that it is sent uncopied.

        It must not be changed while a call that it was given to is unanswered. Where no memory is shared, or it is
        small, it is an array like any other.
        """
        memory = self._session.run(lambda engine: engine.shared_memory())
        return _empty(memory, shape, dtype)

    def close(self) -> None:
        """Ends the connections and the client's use; calls without an answer end with CallCancelledError."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncClient(Connectable, AwaitableStoreMethods, AwaitableCalls):
    """A client whose methods are awaited; it belongs to the event loop of its first call.

    Calls of all tasks travel together on one connection an address. Use it as an async context manager, or `close` it.

    Args: those of `Client`.
    """

    def _make_session(self, settings: Settings, options: Options) -> LoopSession:
        AwaitableCalls.__init__(self, LoopSession(settings), options)
        return self._session

    async def wait_ready(self, timeout: float = 30.0) -> None:  # noqa: ASYNC109  # as in Client
        """As `Client.wait_ready`."""
        await rpc.wait_ready(self._session.engine(), seconds(timeout))

    async def server_info(self) -> messages.GetServerInfoResponse:
        """As `Client.server_info`."""
        return await rpc.server_info(self._session.engine(), self._options.timeout)

    async def estimate(self, function: str, /, *args: Any, **kwargs: Any) -> Estimate:
        """As `Client.estimate`."""
        return await rpc.estimate(self._session.engine(), _request(function, args, kwargs), self._options)

    async def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """As `Client.empty`."""
        return _empty(await self._session.engine().shared_memory(), shape, dtype)

    async def close(self) -> None:
        """As `Client.close`."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def _empty(memory: ClientMemory | None, shape: int | Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    array = None if memory is None else memory.empty(shape, dtype)
    return np.empty(shape, dtype) if array is None else array


def _request(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
    if function.startswith("_") or function not in dir(Calls):
        raise AttributeError(f"there is no operator {function!r}")
    request: Request = getattr(Requests(), function)(*args, **kwargs)
    return request
