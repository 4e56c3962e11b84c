"""Bytes of tensors and of stream messages: the dtype tables, and templates that spell a repeated message once.

It knows numpy and the protobuf wire format; neither torch nor gRPC.

A stream of small calls repeats the same message with another id and other data. Building it field by field through
protobuf costs more than the call itself, so `entry` spells out everything that stays and leaves gaps for the rest.
What comes out is plain protobuf; tests parse it back with the generated classes.
Wire format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from layerwire.v1 import tensor_pb2

DataType = tensor_pb2.DataType

# name -> (wire value, bytes an element). The names are torch's, and numpy's (bfloat16 by way of ml_dtypes).
_TABLE: dict[str, tuple[int, int]] = {
    "float32": (tensor_pb2.DATA_TYPE_FLOAT32, 4),
    "float64": (tensor_pb2.DATA_TYPE_FLOAT64, 8),
    "float16": (tensor_pb2.DATA_TYPE_FLOAT16, 2),
    "bfloat16": (tensor_pb2.DATA_TYPE_BFLOAT16, 2),
    "int8": (tensor_pb2.DATA_TYPE_INT8, 1),
    "int16": (tensor_pb2.DATA_TYPE_INT16, 2),
    "int32": (tensor_pb2.DATA_TYPE_INT32, 4),
    "int64": (tensor_pb2.DATA_TYPE_INT64, 8),
    "uint8": (tensor_pb2.DATA_TYPE_UINT8, 1),
    "bool": (tensor_pb2.DATA_TYPE_BOOL, 1),
}
DTYPES: dict[str, int] = {name: value for name, (value, _) in _TABLE.items()}
DTYPE_NAMES: dict[int, str] = {value: name for name, (value, _) in _TABLE.items()}
ITEMSIZES: dict[int, int] = dict(_TABLE.values())
MAX_AXES = 8

pack_id = struct.Struct("<Q").pack


class TensorSpec(NamedTuple):
    """A tensor without its data: wire dtype and shape."""

    dtype: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * ITEMSIZES[self.dtype]


def numpy_dtype(dtype: int) -> np.dtype[Any]:
    """The numpy dtype of a wire dtype. bfloat16 needs the package ml_dtypes.

    Raises:
        TypeError: numpy has no such dtype here.
    """
    name = DTYPE_NAMES[dtype]
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes  # type: ignore[import-not-found,unused-ignore]  # optional: numpy alone has no bfloat16
    except ImportError:
        raise TypeError("numpy has no bfloat16: use torch tensors, or install ml_dtypes") from None
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def bare(spec: TensorSpec) -> tensor_pb2.Tensor:
    """The message of a tensor without its data."""
    return tensor_pb2.Tensor(dtype=DataType.Name(spec.dtype), shape=spec.shape)


def to_numpy(tensor: tensor_pb2.Tensor) -> npt.NDArray[Any]:
    """A writable array with the message's data."""
    flat = np.frombuffer(tensor.data, numpy_dtype(tensor.dtype))
    return flat.reshape(tuple(tensor.shape)).copy()


def from_numpy(array: npt.NDArray[Any]) -> tensor_pb2.Tensor:
    """The message of an array.

    Raises:
        TypeError: the dtype has no place on the wire.
    """
    dtype = DTYPES.get(array.dtype.name)
    if dtype is None:
        raise TypeError(f"dtype {array.dtype.name} is not supported, only {', '.join(DTYPES)}")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    tensor = bare(TensorSpec(dtype, array.shape))
    tensor.data = little.tobytes()
    return tensor


def varint(value: int) -> bytes:
    """A non-negative number in base 128, least significant group first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def prefix(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return varint(number << 3 | 2) + varint(length)


class Entry(NamedTuple):
    """A `Call` within `Calls`, or an `Answer` within `StreamResponse`, with gaps for its id and data.

    Its bytes are head + pack_id(id) + gaps[0] + data[0] + gaps[1] + ... + data[n - 1] + gaps[n].
    """

    head: bytes
    gaps: tuple[bytes, ...]
    nbytes: int

    def parts(self, call_id: int, data: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
        """The pieces of its bytes, data uncopied."""
        parts: list[bytes | memoryview] = [self.head, pack_id(call_id), self.gaps[0]]
        for piece, gap in zip(data, self.gaps[1:], strict=True):
            parts.append(piece)
            if gap:
                parts.append(gap)
        return parts


class Keyed(NamedTuple):
    """An entry of a map field of tensors: number of the field, and the key."""

    number: int
    key: str


# Where a tensor stands in a message: number of its field, or an entry of a map field.
Slot: TypeAlias = int | Keyed
Tensors: TypeAlias = Sequence[tuple[Slot, TensorSpec | str]]


def literals(head: bytes, tensors: Tensors, tail: bytes = b"") -> tuple[tuple[bytes, ...], int]:
    """A message with gaps where its tensors' data go, and the length of all of it, data included.

    Its bytes are literal[0] + data[0] + literal[1] + ... + data[n - 1] + literal[n].

    Args:
        head: serialized fields that stay (options, operator).
        tensors: the tensors in the order of their data: where they stand, and spec or name of stored weights.
        tail: serialized fields that follow them.
    """
    gaps, literal, length = [], head, len(head) + len(tail)
    for slot, content in tensors:
        if isinstance(content, str):
            piece, nbytes = _opened(slot, tensor_pb2.Tensor(name=content).SerializeToString(), 0), 0
        else:
            nbytes = content.nbytes
            piece = _opened(slot, bare(content).SerializeToString() + prefix(3, nbytes), nbytes)
        literal += piece
        length += len(piece) + nbytes
        if not isinstance(content, str):
            gaps.append(literal)
            literal = b""
    return (*gaps, literal + tail), length


def _opened(slot: Slot, body: bytes, nbytes: int) -> bytes:
    """A tensor's message up to its data, which are `nbytes` and come last."""
    if isinstance(slot, int):
        return prefix(slot, len(body) + nbytes) + body
    key = slot.key.encode()
    value = prefix(1, len(key)) + key + prefix(2, len(body) + nbytes) + body
    return prefix(slot.number, len(value) + nbytes) + value


def entry(number: int, head: bytes, tensors: Tensors, tail: bytes = b"") -> Entry:
    """The template of a call or an answer: `number` is the field of its request or response, the rest as `literals`."""
    return entry_of(number, *literals(head, tensors, tail))


def entry_of(number: int, gaps: tuple[bytes, ...], inner: int) -> Entry:
    """The same of a request or response that is spelled out already: its literals, and its length with all data."""
    opened = prefix(number, inner)
    length = 9 + len(opened) + inner
    opening = prefix(1, length) + b"\x09"
    return Entry(opening, (opened + gaps[0], *gaps[1:]), len(opening) + length - 1)
