"""Safetensors files: the header of one that may be hostile, and the bytes of a new one.

It knows the format and the table of dtypes; neither torch, nor files, nor the package of that name, which tests compare
it with.

    8 bytes       length of the header, little-endian
    header        JSON: {"key": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {...}}
    data          where data_offsets point to, without holes or overlaps

Format: https://github.com/huggingface/safetensors#format. Nothing read is trusted: the nesting is checked before it is
parsed, and products of sizes are bounded. A new file is never held as a whole: tensors are read one after the other,
and go out in pieces.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

from layerwire.wire.dtypes import ITEMSIZES, MAX_AXES, OF_SAFETENSORS

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 65_536
ALIGNMENT_BYTES = 64  # where the data begin, so that a mapped file can be read as vectors
PIECE_BYTES = 1 << 20
_MAX_COMMAS = 16 * MAX_TENSORS  # a tensor has at most 12
_MAX_SIZE = (1 << 63) - 1
_FIELDS = {"dtype", "shape", "data_offsets"}
_NAMES = {row.code: name for name, row in OF_SAFETENSORS.items()}

# Both match from wherever they start, so that a header of 16 MiB of quotes or brackets takes linear time.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NESTING = re.compile(rb"\{(?:\{(?:\[\])*+\})*+\}")


class FormatError(ValueError):
    """It is no safetensors file, or has a dtype, a shape or a number of tensors that isn't taken."""


class TensorEntry(NamedTuple):
    """A tensor in a file: torch's name of its dtype, its shape, and where in the file its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


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

    Attributes:
        header: the JSON, padded with spaces as the format allows.
    """

    def __init__(self, contents: Mapping[str, Content]) -> None:
        order = sorted(contents.items(), key=lambda item: (-ITEMSIZES[item[1].dtype], item[0]))
        self.contents: dict[str, Content] = dict(order)
        self.header = _header(self.contents)
        self._head = struct.pack("<Q", len(self.header)) + self.header

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole file."""
        return len(self._head) + sum(content.nbytes for content in self.contents.values())

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
            FormatError: a tensor gives another number of bytes than its dtype and shape need.
        """
        yield from _cut(memoryview(self._head)[offset:], piece_bytes)
        begin = len(self._head)
        for key, content in self.contents.items():
            end = begin + content.nbytes
            if offset < end:
                data = content.read()
                if data.nbytes != content.nbytes:
                    raise FormatError(f"tensor {key} has {data.nbytes} bytes, its shape needs {content.nbytes}")
                yield from _cut(data[max(0, offset - begin) :], piece_bytes)
            begin = end


def _cut(data: memoryview, piece_bytes: int) -> Iterator[memoryview]:
    for start in range(0, data.nbytes, piece_bytes):
        yield data[start : start + piece_bytes]


def _header(contents: Mapping[str, Content]) -> bytes:
    entries, begin = {}, 0
    for key, content in contents.items():
        end = begin + content.nbytes
        entries[key] = {"dtype": _NAMES[content.dtype], "shape": list(content.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-(len(text) + 8) % ALIGNMENT_BYTES)


def parse_header(header: bytes, file_bytes: int) -> dict[str, TensorEntry]:
    """The tensors that a header describes, sorted by key; `begin` and `end` count from the start of a file so long.

    Raises:
        FormatError: the header lies, or describes what isn't taken.
    """
    fields = _parse_json(header)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("safetensors: __metadata__ must map strings to strings")
    start = 8 + len(header)
    entries = {key: _entry(key, value, start) for key, value in sorted(fields.items())}
    _check_cover(entries, start, file_bytes)
    return entries


def _parse_json(header: bytes) -> dict[str, Any]:
    if header[:1] != b"{":
        raise FormatError("safetensors: the header must be a JSON object")
    bare = _STRING.sub(b"", header)
    if bare.count(b"{") > MAX_TENSORS + 2 or bare.count(b",") > _MAX_COMMAS:
        raise FormatError(f"safetensors: the header must have at most {MAX_TENSORS} tensors")
    if _NESTING.fullmatch(re.sub(rb"[^][{}]++", b"", bare)) is None:
        raise FormatError("safetensors: the header must be an object of objects of lists of numbers")
    try:
        text = header.decode("utf-8", "strict")
        fields = json.loads(text, object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        # A plain ValueError is int's, of more digits than it takes; it names a Python setting.
        reason = "a number has too many digits" if type(error) is ValueError else str(error)[:200]
        raise FormatError(f"safetensors: the header is no JSON: {reason}") from None
    assert isinstance(fields, dict)  # it starts with a brace
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise FormatError("safetensors: the header has a key twice")
    return values


def _refuse(number: str) -> NoReturn:
    raise FormatError(f"safetensors: numbers must be whole, got {number[:40]}")


def _entry(key: str, value: Any, start: int) -> TensorEntry:
    subject = f"safetensors: tensor {key[:80]!r}"
    if not _is_text(key):
        raise FormatError(f"{subject}: the key is no text")
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise FormatError(f"{subject}: must have dtype, shape and data_offsets, and nothing else")
    name, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(name, str) or name not in OF_SAFETENSORS:
        raise FormatError(f"{subject}: dtype must be one of {', '.join(OF_SAFETENSORS)}, got {str(name)[:40]!r}")
    if not _are_sizes(shape) or len(shape) > MAX_AXES:
        raise FormatError(f"{subject}: shape must be at most {MAX_AXES} whole numbers of 0 or more")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise FormatError(f"{subject}: data_offsets must be two whole numbers of 0 or more")
    row = OF_SAFETENSORS[name]
    # torch multiplies in 64 bits, strides of empty tensors too, so a 0 among the sizes excuses nothing
    if math.prod(max(size, 1) for size in shape) * row.nbytes > _MAX_SIZE:
        raise FormatError(f"{subject}: shape has more bytes than 64 bits can count")
    begin, end = offsets
    if end - begin != math.prod(shape) * row.nbytes:
        raise FormatError(f"{subject}: data_offsets must span the bytes of its shape, got {begin} to {end}")
    return TensorEntry(row.name, tuple(shape), start + begin, start + end)


def _are_sizes(value: Any) -> bool:
    # `type` and not isinstance: True is no size
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= _MAX_SIZE for size in value)


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _check_cover(entries: Mapping[str, TensorEntry], start: int, file_bytes: int) -> None:
    spans = sorted((entry.begin, entry.end) for entry in entries.values())
    edges = [(start, start), *spans, (file_bytes, file_bytes)]
    for (_, before), (begin, _) in pairwise(edges):
        if begin != before:
            raise FormatError(
                "safetensors: data_offsets must cover the data without holes and overlaps, "
                f"but byte {before - start} is followed by {begin - start}"
            )
