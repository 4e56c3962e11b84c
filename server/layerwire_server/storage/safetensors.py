"""Safetensors files: the header of one that may be hostile, and the bytes of a new one.

It knows bytes and Python integers; neither torch nor the package of that name, which tests compare it with.

    8 bytes       length of the header, little-endian
    header        JSON: {"key": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {...}}
    data          where data_offsets point to, without holes or overlaps

Format: https://github.com/huggingface/safetensors#format. Nothing here is trusted: a length is checked before it is
read, the nesting before it is parsed, and products of sizes are bounded.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, BinaryIO, NamedTuple, NoReturn

from layerwire_server.storage.durable import PIECE_BYTES, Piece
from layerwire_server.storage.errors import HeaderError

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 65_536
MAX_AXES = 8
_MAX_COMMAS = 16 * MAX_TENSORS  # a tensor has at most 12
_MAX_SIZE = (1 << 63) - 1
_ALIGNMENT_BYTES = 64
_FIELDS = {"dtype", "shape", "data_offsets"}

# the format's name -> (torch's name, bytes an element)
_TABLE: dict[str, tuple[str, int]] = {
    "F32": ("float32", 4),
    "F64": ("float64", 8),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I8": ("int8", 1),
    "I16": ("int16", 2),
    "I32": ("int32", 4),
    "I64": ("int64", 8),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_CODES = {name: code for code, (name, _) in _TABLE.items()}
ITEMSIZES: dict[str, int] = dict(_TABLE.values())

# Both match from wherever they start, so that a header of 16 MiB of quotes or brackets takes linear time.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NESTING = re.compile(rb"\{(?:\{(?:\[\])*+\})*+\}")


class TensorEntry(NamedTuple):
    """A tensor in a file: torch's name of its dtype, its shape, and where in the file its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(file: BinaryIO) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file by key, sorted; `begin` and `end` count from the file's start.

    Raises:
        HeaderError: it is no safetensors file, or has a dtype, a shape or a number of tensors that isn't taken.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    return parse_header(_header_of(file, size), size)


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


def parse_header(header: bytes, file_bytes: int) -> dict[str, TensorEntry]:
    """The tensors that a header of a file of so many bytes describes.

    Raises:
        HeaderError: as for read_header.
    """
    fields = _parse_json(header)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError("safetensors: __metadata__ must map strings to strings")
    start = 8 + len(header)
    found = {key: _entry(key, value, start) for key, value in sorted(fields.items())}
    _check_cover(found, start, file_bytes)
    return found


def _parse_json(header: bytes) -> dict[str, Any]:
    if header[:1] != b"{":
        raise HeaderError("safetensors: the header must be a JSON object")
    bare = _STRING.sub(b"", header)
    if bare.count(b"{") > MAX_TENSORS + 2 or bare.count(b",") > _MAX_COMMAS:
        raise HeaderError(f"safetensors: the header must have at most {MAX_TENSORS} tensors")
    if _NESTING.fullmatch(re.sub(rb"[^][{}]++", b"", bare)) is None:
        raise HeaderError("safetensors: the header must be an object of objects of lists of numbers")
    try:
        text = header.decode("utf-8", "strict")
        fields = json.loads(text, object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse)
    except HeaderError:
        raise
    except (ValueError, RecursionError) as error:
        # A plain ValueError is int's, of more digits than it takes; it names a Python setting.
        reason = "a number has too many digits" if type(error) is ValueError else str(error)[:200]
        raise HeaderError(f"safetensors: the header is no JSON: {reason}") from None
    assert isinstance(fields, dict)  # it starts with a brace
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise HeaderError("safetensors: the header has a key twice")
    return found


def _refuse(number: str) -> NoReturn:
    raise HeaderError(f"safetensors: numbers must be whole, got {number[:40]}")


def _entry(key: str, value: Any, start: int) -> TensorEntry:
    shown = f"safetensors: tensor {key[:80]!r}"
    if not _is_text(key):
        raise HeaderError(f"{shown}: the key is no text")
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise HeaderError(f"{shown}: must have dtype, shape and data_offsets, and nothing else")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in _TABLE:
        raise HeaderError(f"{shown}: dtype must be one of {', '.join(_TABLE)}, got {str(code)[:40]!r}")
    if not _are_sizes(shape) or len(shape) > MAX_AXES:
        raise HeaderError(f"{shown}: shape must be at most {MAX_AXES} whole numbers of 0 or more")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise HeaderError(f"{shown}: data_offsets must be two whole numbers of 0 or more")
    dtype, itemsize = _TABLE[code]
    # torch multiplies in 64 bits, strides of empty tensors too, so a 0 among the sizes excuses nothing
    if math.prod(max(size, 1) for size in shape) * itemsize > _MAX_SIZE:
        raise HeaderError(f"{shown}: shape has more bytes than 64 bits can count")
    begin, end = offsets
    if end - begin != math.prod(shape) * itemsize:
        raise HeaderError(f"{shown}: data_offsets must span the bytes of its shape, got {begin} to {end}")
    return TensorEntry(dtype, tuple(shape), start + begin, start + end)


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
            raise HeaderError(
                "safetensors: data_offsets must cover the data without holes and overlaps, "
                f"but byte {before - start} is followed by {begin - start}"
            )


def write_safetensors(tensors: Mapping[str, tuple[str, tuple[int, ...], Piece]]) -> Iterator[bytes | memoryview]:
    """A safetensors file in pieces of at most 1 MiB: key -> (torch's name of the dtype, shape, row-major bytes).

    Equal tensors give equal files, whatever their order in `tensors`. The data begin at a multiple of 64 bytes, and
    wider dtypes come first, so that every tensor is aligned to its elements.

    Raises:
        HeaderError: bytes don't fit their shape, a dtype is unknown, or the header would be too large to be read.
    """
    order = sorted(tensors, key=lambda key: (-ITEMSIZES.get(tensors[key][0], 0), key))
    header = _written_header({key: tensors[key] for key in order})
    yield len(header).to_bytes(8, "little") + header
    for key in order:
        data = memoryview(tensors[key][2])
        data = data.cast("B") if data.nbytes else data  # an empty view can't be cast
        for begin in range(0, data.nbytes, PIECE_BYTES):
            yield data[begin : begin + PIECE_BYTES]


def _written_header(tensors: Mapping[str, tuple[str, tuple[int, ...], Piece]]) -> bytes:
    fields: dict[str, Any] = {}
    offset = 0
    for key, (dtype, shape, data) in tensors.items():
        if dtype not in _CODES:
            raise HeaderError(
                f"safetensors: tensor {key[:80]!r}: dtype must be one of {', '.join(_CODES)}, got {dtype!r}"
            )
        end = offset + memoryview(data).nbytes
        fields[key] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    header += b" " * (-(8 + len(header)) % _ALIGNMENT_BYTES)
    if len(header) > MAX_HEADER_BYTES:
        raise HeaderError(f"safetensors: the header must be at most {MAX_HEADER_BYTES} bytes, got {len(header)}")
    parse_header(header, 8 + len(header) + offset)
    return header
