"""StoreService: names and programs are a worker's, files are written and read here, in pieces.

It knows the store's files and uploads and gRPC's iterators; nothing of what is in a file, which a worker reads.

Of an upload one piece is read while the one before is written, and no more: a client that is faster than the disk waits
by gRPC's flow control. Whatever ends an upload but what is wrong with the file leaves its part for the next.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

import grpc

from layerwire.errors import InvalidArgumentError, UnavailableError, invalid
from layerwire.v1 import store_pb2
from layerwire_server.gateway.refusal import RefusedError, code_of, status_of
from layerwire_server.gateway.rpc import Context, Rpc, Services, WorkerRpc, parse
from layerwire_server.link import SPAN, Family
from layerwire_server.storage import DamagedError, Store, Upload, Uploads

SERVICE_NAME: str = store_pb2.DESCRIPTOR.services_by_name["StoreService"].full_name
MAX_PIECE_BYTES = 4 << 20  # of an upload
PIECE_BYTES = 1 << 20  # of a download
STALL_SECONDS = 30.0  # without a piece, or with one that the client doesn't read
_ROOM_BYTES = 64  # what a message has beside its piece
# What ended the look into the file without a word about the file.
_NO_VERDICT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class StoreMethod(NamedTuple):
    """A method that a worker does: the family of its frames, and whether names are others after it."""

    family: Family
    changes: bool


FORWARDED = {
    "NameWeights": StoreMethod(Family.NAME_WEIGHTS, changes=True),
    "ListWeights": StoreMethod(Family.LIST_WEIGHTS, changes=False),
    "DeleteWeights": StoreMethod(Family.DELETE_WEIGHTS, changes=True),
    "PutProgram": StoreMethod(Family.PUT_PROGRAM, changes=True),
    "ListPrograms": StoreMethod(Family.LIST_PROGRAMS, changes=False),
    "GetProgram": StoreMethod(Family.GET_PROGRAM, changes=False),
    "SetDefaultVersion": StoreMethod(Family.SET_DEFAULT_VERSION, changes=True),
    "DeleteProgram": StoreMethod(Family.DELETE_PROGRAM, changes=True),
    "ListKernels": StoreMethod(Family.LIST_KERNELS, changes=False),
}


def methods(
    services: Services, store: Store, names_changed: Callable[[], Awaitable[None]]
) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Handlers of all methods; `names_changed` is awaited before a client learns that names are others now."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, (family, changes) in FORWARDED.items():
        rpc = WorkerRpc(name, family, services, names_changed if changes else None)
        handlers[name] = grpc.unary_unary_rpc_method_handler(rpc.handle)
    uploads = UploadRpcs(services, Uploads(store))
    handlers["GetUpload"] = grpc.unary_unary_rpc_method_handler(uploads.get_upload)
    handlers["Upload"] = grpc.stream_unary_rpc_method_handler(uploads.upload)
    handlers["GetWeights"] = grpc.unary_stream_rpc_method_handler(DownloadRpc(services, store).get_weights)
    return handlers


class UploadRpcs:
    """The RPCs GetUpload and Upload.

    Args:
        services: what it shares with others.
        uploads: the store's.
    """

    def __init__(self, services: Services, uploads: Uploads) -> None:
        self._services = services
        self._uploads = uploads
        self._get_upload = Rpc("GetUpload", services, "get_upload", exhaustion="store_bytes")
        self._upload = Rpc("Upload", services, "upload", exhaustion="store_bytes")

    async def get_upload(self, payload: bytes, context: Context) -> bytes:
        """gRPC: GetUpload."""
        return await self._get_upload.serve(self._progress(payload), context)

    async def upload(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        """gRPC: Upload."""
        return await self._upload.serve(self._store_file(requests, context), context)

    async def _progress(self, payload: bytes) -> bytes:
        request = parse(store_pb2.GetUploadRequest(), payload)
        progress = await asyncio.to_thread(self._uploads.progress, request.digest)
        answer = store_pb2.GetUploadResponse(complete=progress.complete, received_bytes=progress.received_bytes)
        return answer.SerializeToString()

    async def _store_file(self, requests: AsyncIterator[bytes], context: Context) -> bytes:
        header = (await self._next(requests) or store_pb2.UploadRequest()).header
        if not header.digest:
            raise invalid("upload", "header", "is required, in the first message")
        upload = await self._begin(header)
        try:
            await self._write_all(upload, requests)
            if upload.received_bytes < header.size:
                # So it looks too when the client has gone: grpcio ends the messages before it cancels the handler.
                rule = f"ended after {upload.received_bytes} of {header.size} bytes; GetUpload tells where to go on"
                raise InvalidArgumentError(f"upload: {rule}", operator="upload", field="data")
            await asyncio.to_thread(upload.seal)
            answer = await self._check(upload, header, context)
            await asyncio.to_thread(upload.commit)
        finally:
            await asyncio.shield(asyncio.to_thread(upload.close))
        return answer

    async def _begin(self, header: store_pb2.UploadHeader) -> Upload:
        begin = asyncio.ensure_future(asyncio.to_thread(self._uploads.begin, header.digest, header.size, header.offset))
        try:
            return await asyncio.shield(begin)  # its thread goes on, and what it opens must be closed
        except asyncio.CancelledError:
            begin.add_done_callback(_close)
            raise

    async def _write_all(self, upload: Upload, requests: AsyncIterator[bytes]) -> None:
        write: asyncio.Future[None] | None = None
        try:
            while (request := await self._next(requests)) is not None:
                if request.WhichOneof("piece") != "data":
                    raise invalid("upload", "data", "is required in every message but the first")
                if write is not None:
                    await write
                write = asyncio.ensure_future(self._write(upload, request.data))
            if write is not None:
                await write
        finally:
            if write is not None and not write.done():
                with suppress(Exception):  # another error ends the upload
                    await asyncio.shield(write)

    async def _write(self, upload: Upload, data: bytes) -> None:
        admission = self._services.admission
        admission.hold(len(data))
        try:
            await asyncio.to_thread(upload.write, data)
        finally:
            admission.release(len(data), time.monotonic())

    async def _next(self, requests: AsyncIterator[bytes]) -> store_pb2.UploadRequest | None:
        """The next message; None after the last.

        Raises:
            UnavailableError: none came for too long.
            InvalidArgumentError: it is none, or too large.
        """
        await self._services.admission.room()
        try:
            async with asyncio.timeout(STALL_SECONDS):
                payload = await anext(requests, None)
        except TimeoutError:
            rule = f"no piece came for {STALL_SECONDS:g} s; GetUpload tells where to go on"
            raise UnavailableError(f"upload: {rule}", operator="upload") from None
        if payload is None:
            return None
        self._upload.received_bytes.add(len(payload))
        if len(payload) > MAX_PIECE_BYTES + _ROOM_BYTES:
            raise invalid("upload", "data", f"must be at most {MAX_PIECE_BYTES} bytes a message, got {len(payload)}")
        request: store_pb2.UploadRequest = parse(store_pb2.UploadRequest(), payload)
        return request

    async def _check(self, upload: Upload, header: store_pb2.UploadHeader, context: Context) -> bytes:
        """What a worker finds in the file; if it finds it wrong, the part is deleted.

        Raises:
            RefusedError: it is wrong, or no worker could look.
        """
        try:
            return await self._services.ask(Family.CHECK_UPLOAD, header.SerializeToString(), context)
        except RefusedError as refused:
            if code_of(status_of(refused.error)) not in _NO_VERDICT:
                await asyncio.to_thread(upload.discard)
            raise


def _close(begin: asyncio.Future[Upload]) -> None:
    if not begin.cancelled() and begin.exception() is None:
        asyncio.get_running_loop().run_in_executor(None, begin.result().close)


class DownloadRpc:
    """The RPC GetWeights.

    Args:
        services: what it shares with others.
        store: where the files are.
    """

    def __init__(self, services: Services, store: Store) -> None:
        self._services = services
        self._store = store
        self._rpc = Rpc("GetWeights", services, "get_weights", exhaustion="store_bytes")

    async def get_weights(self, payload: bytes, context: Context) -> None:
        """gRPC: GetWeights."""
        await self._rpc.serve(self._write_tensor(payload, context), context)

    async def _write_tensor(self, payload: bytes, context: Context) -> None:
        answer = await self._services.ask(Family.FIND_WEIGHTS, payload, context)
        place = parse(store_pb2.GetWeightsResponse(), answer)
        begin, end = SPAN.unpack(place.data)
        with await asyncio.to_thread(self._store.open_weights, place.info.tensor.digest) as file:
            await self._write(context, store_pb2.GetWeightsResponse(info=place.info))
            while begin < end:
                piece = await asyncio.to_thread(os.pread, file.fileno(), min(PIECE_BYTES, end - begin), begin)
                if not piece:
                    raise DamagedError(f"the store's file with digest {place.info.tensor.digest} has become shorter")
                await self._write(context, store_pb2.GetWeightsResponse(data=piece))
                begin += len(piece)

    async def _write(self, context: Context, response: store_pb2.GetWeightsResponse) -> None:
        message = response.SerializeToString()
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await context.write(message)
        except TimeoutError:
            raise UnavailableError(f"get_weights: nothing was read for {STALL_SECONDS:g} s") from None
        self._rpc.sent_bytes.add(len(message))
