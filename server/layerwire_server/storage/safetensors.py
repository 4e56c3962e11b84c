"""Safetensors files on the disk: their headers, and new ones of tensors in memory, with the store's errors.

It knows files; what is in one says layerwire.wire.safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from layerwire.wire import safetensors
from layerwire.wire.dtypes import DTYPES
from layerwire.wire.safetensors import MAX_HEADER_BYTES, Content, FormatError, SafetensorsFile, TensorEntry
from layerwire_server.storage.durable import Piece
from layerwire_server.storage.errors import HeaderError


def read_header(file: BinaryIO) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file by key, sorted; `begin` and `end` count from the file's start.

    Raises:
        HeaderError: it is no safetensors file, or has a dtype, a shape or a number of tensors that isn't taken.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    return _parse_header(_header_of(file, size), size)


def _header_of(file: BinaryIO, size: int) -> bytes:
    start = file.read(8)
    if len(start) < 8:
        raise HeaderError(f"safetensors: the file must have at least 8 bytes, got {size}")
    length = int.from_bytes(start, "little")
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise HeaderError(
            f"safetensors: the header must be at most {MAX_HEADER_BYTES} bytes and within the file of {size}, "
            f"got {length}"
        )
    header = file.read(length)
    if len(header) != length:
        raise HeaderError("safetensors: the file became shorter while it was read")
    return header


def _parse_header(header: bytes, size: int) -> dict[str, TensorEntry]:
    try:
        return safetensors.parse_header(header, size)
    except FormatError as error:
        raise HeaderError(str(error)) from None


def write_safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...], Piece]]) -> Iterator[memoryview]:
    """A safetensors file in pieces of at most 1 MiB: key -> (torch's name of the dtype, shape, row-major bytes).

    Equal tensors give equal files, whatever their order in `tensors`.

    Raises:
        HeaderError: bytes don't fit their shape, a dtype is unknown, or the header would be too large to be read.
    """
    file = SafetensorsFile({key: _content(key, *tensor) for key, tensor in tensors.items()})
    if len(file.header) > MAX_HEADER_BYTES:
        raise HeaderError(f"safetensors: the header must be at most {MAX_HEADER_BYTES} bytes, got {len(file.header)}")
    _parse_header(file.header, file.size_bytes)
    try:
        yield from file.pieces()
    except FormatError as error:
        raise HeaderError(f"safetensors: {error}") from None


def _content(key: str, dtype: str, shape: tuple[int, ...], data: Piece) -> Content:
    if dtype not in DTYPES:
        raise HeaderError(f"safetensors: tensor {key[:80]!r}: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    view = memoryview(data)
    return Content(DTYPES[dtype], shape, lambda: view.cast("B") if view.nbytes else view)  # an empty view can't be cast
