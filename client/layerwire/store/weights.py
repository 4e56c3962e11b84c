"""Weights of the store as functions of an engine: put, name, list, get, delete.

It knows channels and the contract; neither threads nor operators.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import numpy.typing as npt
from google.protobuf.message import DecodeError

from layerwire.errors import DeadlineExceededError, InternalError, invalid
from layerwire.store import replicas, uploads
from layerwire.store.uploads import LocalFile, Progress
from layerwire.transport import retry, rpc
from layerwire.transport.connection import Connection
from layerwire.transport.engine import Engine
from layerwire.v1 import layerwire_pb2, program_pb2, store_pb2, tensor_pb2
from layerwire.wire import arrays
from layerwire.wire.arrays import numpy_dtype
from layerwire.wire.dtypes import DTYPE_NAMES
from layerwire.wire.safetensors import Content, SafetensorsFile

MAX_NAMES = 8192  # of one request
_SMALL_BYTES = 1 << 20  # up to here a tensor goes as one message
_KEY = "tensor"  # of a file's only tensor; the server's own choice too, so that equal tensors have equal digests


class Weights(NamedTuple):
    """Named weights: what is known of them.

    Attributes:
        dtype: torch's name; "" where the server can't read the file.
        digest: sha256 of the safetensors file that they are in.
        key: theirs in that file.
        pinned: whether they stay on devices when room is short.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    key: str
    pinned: bool


async def put(
    engine: Engine, name: str | Mapping[str, Any], array: Any, timeout_seconds: float | None, *, pinned: bool
) -> str:
    """Names a tensor, or several at once; the digest of the file that they are in."""
    if isinstance(name, Mapping):
        if array is not None or not name:
            raise TypeError("put_weights: a mapping must have a tensor, and no array beside it")
        contents = {key: arrays.content("put_weights", key, value) for key, value in name.items()}
        return await _put_file(engine, contents, {key: key for key in contents}, timeout_seconds, pinned=pinned)
    if not isinstance(name, str):
        raise TypeError(f"put_weights: name must be a string, got {type(name).__name__}")
    content = arrays.content("put_weights", "array", array)
    if pinned or content.nbytes > _SMALL_BYTES:
        return await _put_file(engine, {_KEY: content}, {name: _KEY}, timeout_seconds, pinned=pinned)
    dtype = tensor_pb2.DataType.Name(content.dtype)
    tensor = tensor_pb2.Tensor(dtype=dtype, shape=content.shape, data=content.read().tobytes())
    request = layerwire_pb2.PutWeightsRequest(name=name, tensor=tensor)
    method, answer = "LayerwireService/PutWeights", layerwire_pb2.PutWeightsResponse
    answers = await replicas.ask_all(engine, method, request, answer, timeout_seconds)
    digest: str = answers[0].digest
    return digest


async def import_file(
    engine: Engine,
    path: str | os.PathLike[str],
    prefix: str,
    timeout_seconds: float | None,
    progress: Progress | None,
    *,
    pinned: bool,
) -> list[str]:
    """Uploads a safetensors file and names its tensors prefix + key; the names."""
    file, keys = await asyncio.to_thread(lambda: (LocalFile(path), _keys_of(path)))
    if not keys:
        raise invalid("import_weights", "path", f"has no tensors: {Path(path).name}")
    await uploads.upload(engine, file, timeout_seconds, progress)
    keys_by_name = {prefix + key: key for key in keys}
    await _name(engine, file.digest, keys_by_name, timeout_seconds, pinned=pinned)
    return list(keys_by_name)


async def _put_file(
    engine: Engine,
    contents: Mapping[str, Content],
    keys_by_name: Mapping[str, str],
    timeout_seconds: float | None,
    *,
    pinned: bool,
) -> str:
    file = SafetensorsFile(contents)
    await uploads.upload(engine, file, timeout_seconds)
    await _name(engine, file.digest, keys_by_name, timeout_seconds, pinned=pinned)
    return file.digest


async def _name(
    engine: Engine, digest: str, keys_by_name: Mapping[str, str], timeout_seconds: float | None, *, pinned: bool
) -> None:
    entries = [
        store_pb2.NamedWeights(name=name, tensor=program_pb2.StoredTensor(digest=digest, key=key), pinned=pinned)
        for name, key in keys_by_name.items()
    ]
    for begin in range(0, len(entries), MAX_NAMES):
        request = store_pb2.NameWeightsRequest(weights=entries[begin : begin + MAX_NAMES])
        await replicas.ask_all(
            engine, "StoreService/NameWeights", request, store_pb2.NameWeightsResponse, timeout_seconds
        )


def _keys_of(path: str | os.PathLike[str]) -> list[str]:
    """The keys of a safetensors file; what else is wrong with it, the server finds."""
    wrong = invalid("import_weights", "path", f"must be a safetensors file, got {Path(path).name}")
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > Path(path).stat().st_size:
            raise wrong
        try:
            header = dict(json.loads(file.read(length)))
        except (ValueError, TypeError):
            raise wrong from None
    return sorted(key for key in header if key != "__metadata__")


async def list_all(engine: Engine, prefix: str, timeout_seconds: float | None) -> list[Weights]:
    """All named weights whose names start so, sorted."""
    request, method = store_pb2.ListWeightsRequest(prefix=prefix), "StoreService/ListWeights"
    pages = await replicas.pages(engine, method, request, store_pb2.ListWeightsResponse, timeout_seconds)
    return [_weights_of(info) for page in pages for info in page.weights]


def _weights_of(info: store_pb2.WeightsInfo) -> Weights:
    dtype = DTYPE_NAMES.get(info.dtype, "")
    return Weights(info.name, dtype, tuple(info.shape), info.tensor.digest, info.tensor.key, info.pinned)


async def get(engine: Engine, name: str, timeout_seconds: float | None) -> npt.NDArray[Any]:
    """A named tensor; `timeout_seconds` is for each piece.

    Raises:
        TypeError: numpy has no such dtype, as bfloat16 without the package ml_dtypes.
    """
    for failures in range(engine.settings.max_retries + 1):
        connection = rpc.any_connection(engine)
        try:
            async with asyncio.timeout(None) as patience:
                return await _read(engine, connection, name, timeout_seconds, patience)
        except TimeoutError:
            message = f"get_weights: {connection.address} sent nothing for {timeout_seconds:g} s"
            raise DeadlineExceededError(message) from None
        except DecodeError:
            raise InternalError(f"get_weights: {connection.address} sent what is no answer") from None
        except grpc.aio.AioRpcError as error:
            if failures == engine.settings.max_retries or not retry.may_resend(error.code(), error.details() or ""):
                raise rpc.error_of(engine, error, connection.address) from None
    raise AssertionError("the last try returns or raises")


async def _read(
    engine: Engine, connection: Connection, name: str, timeout_seconds: float | None, patience: asyncio.Timeout
) -> npt.NDArray[Any]:
    method: Any = connection.channel.unary_stream(rpc.PACKAGE + "StoreService/GetWeights")
    call = method(store_pb2.GetWeightsRequest(name=name).SerializeToString(), metadata=engine.settings.metadata)
    loop = asyncio.get_running_loop()
    info: store_pb2.WeightsInfo | None = None
    data = bytearray()
    try:
        while True:
            patience.reschedule(None if timeout_seconds is None else loop.time() + timeout_seconds)
            message = await call.read()
            if message is grpc.aio.EOF:
                break
            response = store_pb2.GetWeightsResponse.FromString(message)
            if info is None:
                info = response.info
                if info.dtype in DTYPE_NAMES:
                    numpy_dtype(info.dtype)  # raises before all of it is here
            data += response.data
    finally:
        if not call.done():
            call.cancel()
    if info is None:
        raise InternalError("get_weights: the server's answer is empty")
    return arrays.of_buffer(info.dtype, tuple(info.shape), data)


async def delete(engine: Engine, names: Iterable[str], timeout_seconds: float | None) -> None:
    """Forgets names of weights, all or none."""
    request = store_pb2.DeleteWeightsRequest(names=names)
    await replicas.delete(
        engine, "StoreService/DeleteWeights", request, store_pb2.DeleteWeightsResponse, timeout_seconds
    )
