"""What a message has beside its tensors' data, counted by its tags before it is parsed.

It knows where tensors are in each message; nothing of what else the fields mean.

Numbers of a byte each become eight when parsed and more as Python objects, an empty call of two bytes fifty: 60 MiB of
them cost a worker gigabytes. Tensors' data stays as large as it is. So all the rest is bounded first. Where a
message turns out to be broken the counting ends: the parser gets no further, and says so.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TypeAlias

from google.protobuf.descriptor import Descriptor

from layerwire.inference_v2 import open_inference_pb2
from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire_server.errors import OverLimitError
from layerwire_server.link import MAX_CALLS

# Tag -> what leads on from there; None where it is the data itself. Fields that lead to no tensor aren't in it.
Paths: TypeAlias = dict[int, "Paths | None"]

MESSAGE_BYTES = 512 * 1024  # of a message beside its tensors' data; at worst 11 MiB when parsed
CALL_BYTES = 1024  # so many more for each call of a stream: four names of 200 letters and the longest parameters
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4, groups, are in no message of ours
# Fields that are as large parsed as they came. Typed integers aren't: a byte of them becomes four or eight.
_DATA = {
    tensor_pb2.Tensor.DESCRIPTOR.full_name: ("data",),
    open_inference_pb2.ModelInferRequest.DESCRIPTOR.full_name: ("raw_input_contents",),
    open_inference_pb2.InferTensorContents.DESCRIPTOR.full_name: ("bool_contents", "fp32_contents", "fp64_contents"),
}
_SUBJECTS = {
    "PutWeightsRequest": "put_weights",
    "NameWeightsRequest": "name_weights",
    "DeleteWeightsRequest": "delete_weights",
    "PutProgramRequest": "put_program",
    "ModelInferRequest": "infer",
}


@functools.cache
def paths_to_data(descriptor: Descriptor) -> Paths:
    """The ways to tensors' data in a message type."""
    found: Paths = {
        descriptor.fields_by_name[name].number << 3 | _DELIMITED: None for name in _DATA.get(descriptor.full_name, ())
    }
    for field in descriptor.fields:
        below = paths_to_data(field.message_type) if field.message_type is not None else {}
        if below:
            found[field.number << 3 | _DELIMITED] = below
    return found


_CALLS = paths_to_data(layerwire_pb2.Calls.DESCRIPTOR)


def check(descriptor: Descriptor, payload: bytes | memoryview, most_bytes: int = MESSAGE_BYTES) -> None:
    """Bounds what parsing the payload as such a message can cost.

    Raises:
        OverLimitError: it has too many calls, or too much beside its tensors' data.
    """
    if len(payload) > most_bytes:
        subject = _SUBJECTS.get(descriptor.name, descriptor.name.removesuffix("Request").lower())
        with contextlib.suppress(_BrokenError):
            _Count(subject, payload, most_bytes).add(0, len(payload), paths_to_data(descriptor))


class _BrokenError(Exception):
    """The parser will find it broken here."""


class _Count:
    """The bytes beside data of one message."""

    def __init__(self, subject: str, payload: bytes | memoryview, most_bytes: int) -> None:
        self._subject = subject
        self._payload = payload
        self._most_bytes = self._left = most_bytes
        self._calls = 0

    def add(self, at: int, end: int, paths: Paths) -> None:
        """Counts a message that lies there; each turn spends a byte or more, so that turns are bounded too."""
        while at < end:
            begun = at
            tag, at = self._varint(at, end)
            if tag & 7 == _DELIMITED:
                size, at = self._varint(at, end)
                after = at + size
                if after > end:
                    raise _BrokenError
                if tag in paths:
                    self._spend(at - begun)
                    self._follow(at, after, paths, paths[tag])
                    at = after
                    continue
                at = after
            else:
                at = self._after_scalar(tag & 7, at, end)
            self._spend(at - begun)

    def _follow(self, at: int, after: int, paths: Paths, below: Paths | None) -> None:
        if below is None:
            return
        if paths is _CALLS:
            self._calls += 1
            if self._calls > MAX_CALLS:
                raise OverLimitError("message_calls", "stream", "calls", f"must be at most {MAX_CALLS} a message")
            self._left += CALL_BYTES
            if after - at <= CALL_BYTES:  # whatever is in it has room: small calls cost next to nothing here
                self._spend(after - at)
                return
        self.add(at, after, below)

    def _after_scalar(self, wire_type: int, at: int, end: int) -> int:
        if wire_type == _VARINT:
            return self._varint(at, end)[1]
        return at + {_FIXED64: 8, _FIXED32: 4}.get(wire_type, end - at)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """A number and where it ends."""
        payload, value, shift = self._payload, 0, 0
        while at < end:
            byte = payload[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                break
        raise _BrokenError

    def _spend(self, nbytes: int) -> None:
        self._left -= nbytes
        if self._left < 0:
            rule = f"must have at most {self._most_bytes} bytes beside its tensors' data, and {CALL_BYTES} more a call"
            raise OverLimitError("parameter_bytes", self._subject, "request", rule)
