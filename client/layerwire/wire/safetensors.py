"""Writes safetensors files: https://github.com/huggingface/safetensors#format.

It knows the format and the dtypes on the wire; neither torch nor the store.

A file is never held as a whole: tensors are asked for one after the other, and what is given goes out in pieces.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from layerwire.wire.dtypes import DTYPE_NAMES, ITEMSIZES

ALIGNMENT_BYTES = 64  # where the data begin, so that a mapped file can be read as vectors
PIECE_BYTES = 1 << 20

_CODES: dict[str, str] = {
    "float32": "F32",
    "float64": "F64",
    "float16": "F16",
    "bfloat16": "BF16",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint8": "U8",
    "bool": "BOOL",
}


class Content(NamedTuple):
    """A tensor to write: wire dtype, shape, and what gives its row-major little-endian bytes."""

    dtype: int
    shape: tuple[int, ...]
    read: Callable[[], memoryview]

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * ITEMSIZES[self.dtype]


class SafetensorsFile:
    """A file of tensors by key, which is the same bytes each time it is read.

    Tensors of wide elements come first, so that each begins at a multiple of its element's size.
    """

    def __init__(self, contents: Mapping[str, Content]) -> None:
        order = sorted(contents.items(), key=lambda item: (-ITEMSIZES[item[1].dtype], item[0]))
        self.contents: dict[str, Content] = dict(order)
        self._header = _header(self.contents)

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return len(self._header) + sum(content.nbytes for content in self.contents.values())

    @cached_property
    def digest(self) -> str:
        """sha256 of the whole file, in hexadecimal; the first use reads every tensor once."""
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()

    def pieces(self, offset: int = 0, piece_bytes: int = PIECE_BYTES) -> Iterator[memoryview]:
        """The file's bytes from `offset` on, at most `piece_bytes` at a time; tensors before it are not read.

        Raises:
            ValueError: a tensor gives another number of bytes than its dtype and shape need.
        """
        yield from _cut(memoryview(self._header)[offset:], piece_bytes)
        begin = len(self._header)
        for key, content in self.contents.items():
            end = begin + content.nbytes
            if offset < end:
                data = content.read()
                if data.nbytes != content.nbytes:
                    raise ValueError(f"tensor {key} has {data.nbytes} bytes, its shape needs {content.nbytes}")
                yield from _cut(data[max(0, offset - begin) :], piece_bytes)
            begin = end


def _cut(data: memoryview, piece_bytes: int) -> Iterator[memoryview]:
    for start in range(0, data.nbytes, piece_bytes):
        yield data[start : start + piece_bytes]


def _header(contents: Mapping[str, Content]) -> bytes:
    """Length and JSON, padded with spaces as the format allows."""
    entries, begin = {}, 0
    for key, content in contents.items():
        end = begin + content.nbytes
        entries[key] = {
            "dtype": _CODES[DTYPE_NAMES[content.dtype]],
            "shape": list(content.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT_BYTES)
    return struct.pack("<Q", len(text)) + text
