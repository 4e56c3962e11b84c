"""The upload of a file in pieces, which goes on where it broke off.

It knows channels and the store's messages; neither what is in a file nor who wants it uploaded.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # the stubs end here

from layerwire.errors import (
    CallCancelledError,
    DeadlineExceededError,
    InternalError,
    LayerwireError,
    UnavailableError,
)
from layerwire.transport import retry, rpc
from layerwire.transport.connection import Connection
from layerwire.transport.engine import Engine
from layerwire.v1 import store_pb2
from layerwire.wire.protobuf import prefix
from layerwire.wire.safetensors import PIECE_BYTES

Progress: TypeAlias = Callable[[int, int], None]  # bytes that the server has, bytes of the file
ATTEMPTS = 5  # without a byte of progress between them
_METHOD = "StoreService/Upload"
_SLOWEST_BYTES_PER_SECOND = 20e6  # at which a server may sum a file up, and its disk take it for good
_DATA = store_pb2.UploadRequest.DATA_FIELD_NUMBER


class Source(Protocol):
    """A file's bytes, the same each time they are asked for."""

    @property
    def digest(self) -> str:
        """sha256 of the whole, in hexadecimal."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole."""

    def pieces(self, offset: int = 0) -> Iterator[memoryview]:
        """The bytes from `offset` on, in pieces of at most 4 MiB."""


class LocalFile:
    """A file on this machine's disk, as a Source."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.size_bytes = self.path.stat().st_size

    @cached_property
    def digest(self) -> str:
        """See Source."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def pieces(self, offset: int = 0) -> Iterator[memoryview]:
        """See Source."""
        with self.path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(PIECE_BYTES):
                yield memoryview(piece)


class UploadReport(NamedTuple):
    """How an upload went: bytes of the file, and those of them that were sent."""

    file_bytes: int
    sent_bytes: int


async def upload(
    engine: Engine, source: Source, timeout_seconds: float | None, progress: Progress | None = None
) -> UploadReport:
    """Sends what servers haven't got of a file, one address after the other.

    Args:
        engine: the client's.
        source: the file.
        timeout_seconds: how long a server may leave a piece untaken; None: as long as it likes.
        progress: is called after each piece, on the client's own thread.

    Raises:
        UnavailableError: five attempts in a row brought nothing across.
        LayerwireError: a server refuses the file.
    """
    await asyncio.to_thread(lambda: source.digest)  # sums it up; later uses find it there
    sent_bytes = 0
    for connection in engine.connections:
        sent_bytes += await _Upload(engine, connection, source, timeout_seconds, progress).run()
    return UploadReport(source.size_bytes, sent_bytes)


class _Upload:
    """One file on its way to one server."""

    def __init__(
        self,
        engine: Engine,
        connection: Connection,
        source: Source,
        timeout_seconds: float | None,
        progress: Progress | None,
    ) -> None:
        self._engine = engine
        self._connection = connection
        self._source = source
        self._timeout_seconds = timeout_seconds
        # What takes a server longer the larger the file is: summing up what is there, syncing it to its disk.
        extra = source.size_bytes / _SLOWEST_BYTES_PER_SECOND
        self._patience_seconds = None if timeout_seconds is None else timeout_seconds + extra
        self._progress = progress
        self._sent_bytes = 0

    async def run(self) -> int:
        """Sends what is missing; how many bytes that were, those sent twice included."""
        failures, received_bytes = 0, -1
        chance = random.Random()  # noqa: S311  # jitter keeps no secret
        while True:
            try:
                status = await self._status()
                if status.complete:
                    self._report(self._source.size_bytes)
                    return self._sent_bytes
                failures = 0 if status.received_bytes > received_bytes else failures
                received_bytes = status.received_bytes
                await self._send(received_bytes)
            except (UnavailableError, CallCancelledError):
                failures += 1
                if failures >= ATTEMPTS:
                    raise
                await asyncio.sleep(retry.backoff_seconds(failures, chance))
            else:
                return self._sent_bytes

    async def _status(self) -> store_pb2.GetUploadResponse:
        request, answer = store_pb2.GetUploadRequest(digest=self._source.digest), store_pb2.GetUploadResponse
        response: store_pb2.GetUploadResponse = await rpc.ask(
            self._engine, self._connection, "StoreService/GetUpload", request, answer, self._patience_seconds
        )
        return response

    async def _send(self, offset: int) -> None:
        method: Any = self._connection.channel.stream_unary(rpc.PACKAGE + _METHOD)
        call = method(metadata=self._engine.settings.metadata)
        try:
            await self._write(call, offset)
            async with asyncio.timeout(self._patience_seconds):
                store_pb2.UploadResponse.FromString(await call)
        except TimeoutError:
            message = f"upload: {self._connection.address} took nothing for {self._timeout_seconds:g} s"
            raise DeadlineExceededError(message) from None
        except DecodeError:
            raise InternalError(f"upload: {self._connection.address} sent what is no answer") from None
        except asyncio.CancelledError:  # also how grpc.aio tells that the server ended the call with CANCELLED
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise UnavailableError(f"upload: {self._connection.address} ended it") from None
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from None
        except asyncio.InvalidStateError:  # a write to a call that the server has ended
            raise await self._error_after_end(call) from None
        finally:
            if not call.done():
                call.cancel()

    async def _write(self, call: Any, offset: int) -> None:
        header = store_pb2.UploadHeader(digest=self._source.digest, size=self._source.size_bytes, offset=offset)
        await call.write(store_pb2.UploadRequest(header=header).SerializeToString())
        pieces = self._source.pieces(offset)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            async with asyncio.timeout(self._timeout_seconds):
                await _pass(call, prefix(_DATA, piece.nbytes) + piece)
            offset += piece.nbytes
            self._sent_bytes += piece.nbytes
            self._report(offset)
        with suppress(cygrpc.InternalError):  # the server has ended the call, and its status says why
            await call.done_writing()

    async def _error_after_end(self, call: Any) -> LayerwireError:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return self._error(error)
        except asyncio.CancelledError:
            pass
        return UnavailableError(f"upload: {self._connection.address} ended it")

    def _error(self, error: grpc.aio.AioRpcError) -> LayerwireError:
        own = rpc.error_of(self._engine, error, self._connection.address)
        return UnavailableError(own.message) if retry.may_resend(error.code(), error.details() or "") else own

    def _report(self, there_bytes: int) -> None:
        if self._progress is not None:
            self._progress(there_bytes, self._source.size_bytes)


async def _pass(call: Any, message: bytes) -> None:
    """Sends a message of a call whose first message has gone.

    Not by `call.write`: where the server ends a call while a message waits to be sent, that puts an INTERNAL of its own
    in place of the server's status (grpc.aio 1.85).

    Raises:
        asyncio.InvalidStateError: the server has ended the call; its status says why.
    """
    if call.done():
        raise asyncio.InvalidStateError
    try:
        await call._cython_call.send_serialized_message(message)  # noqa: SLF001
    except cygrpc.InternalError:
        raise asyncio.InvalidStateError from None
