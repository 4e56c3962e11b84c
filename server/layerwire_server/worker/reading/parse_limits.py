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
from layerwire.wire import protobuf
from layerwire_server.errors import OverLimitError
from layerwire_server.link import MAX_CALLS

# Tag -> what leads on from there; None where it is the data itself. Fields that lead to no tensor aren't in it.
Paths: TypeAlias = dict[int, "Paths | None"]

MESSAGE_BYTES = 512 * 1024  # of a message beside its tensors' data; at worst 11 MiB when parsed
CALL_BYTES = 1024  # so many more for each call of a stream: four names of 200 letters and the longest parameters
# Fields that are as large parsed as they came. Typed integers aren't: a byte of them becomes four or eight.
_DATA = {
    tensor_pb2.Tensor.DESCRIPTOR.full_name: ("data",),
    layerwire_pb2.CallGroup.DESCRIPTOR.full_name: ("data",),
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
    data = [descriptor.fields_by_name[name] for name in _DATA.get(descriptor.full_name, ())]
    paths: Paths = {protobuf.tag(field.number): None for field in data}
    for field in descriptor.fields:
        below = paths_to_data(field.message_type) if field.message_type is not None else {}
        if below:
            paths[protobuf.tag(field.number)] = below
    return paths


_CALLS = paths_to_data(layerwire_pb2.Calls.DESCRIPTOR)
_GROUP = paths_to_data(layerwire_pb2.CallGroup.DESCRIPTOR)
_IDS: Paths = {}  # leads nowhere: its bytes are counted as calls
_GROUP[protobuf.tag(layerwire_pb2.CallGroup.TEMPLATE_FIELD_NUMBER)] = paths_to_data(layerwire_pb2.Call.DESCRIPTOR)
_GROUP[protobuf.tag(layerwire_pb2.CallGroup.IDS_FIELD_NUMBER)] = _IDS


def check(descriptor: Descriptor, payload: bytes | memoryview, most_bytes: int = MESSAGE_BYTES) -> None:
    """Bounds what parsing the payload as such a message can cost.

    Raises:
        OverLimitError: it has too many calls, or too much beside its tensors' data.
    """
    if len(payload) > most_bytes:
        subject = _SUBJECTS.get(descriptor.name, descriptor.name.removesuffix("Request").lower())
        with contextlib.suppress(protobuf.MalformedError):
            _Count(subject, payload, most_bytes).add(0, len(payload), paths_to_data(descriptor))


class _Count:
    """The bytes beside data of one message."""

    def __init__(self, subject: str, payload: bytes | memoryview, most_bytes: int) -> None:
        self._subject = subject
        self._payload = payload
        self._most_bytes = self._room_bytes = most_bytes
        self._calls = 0

    def add(self, at: int, end: int, paths: Paths) -> None:
        """Counts a message that lies there; each field spends a byte or more, so that fields are bounded too."""
        try:
            for tag, start, after in protobuf.fields(self._payload, at, end, end - at):
                if tag in paths:
                    self._spend(start - at)
                    self._follow(start, after, paths, paths[tag])
                else:
                    self._spend(after - at)
                at = after
        except protobuf.GroupError:  # what follows is in no field of ours, however a parser takes it
            self._spend(end - at)

    def _follow(self, at: int, after: int, paths: Paths, below: Paths | None) -> None:
        if below is None:
            return
        if below is _IDS:
            self._count_calls((after - at) // 8)
            self._spend(after - at)
            return
        if paths is _CALLS and below is not _GROUP:
            self._count_calls(1)
            if after - at <= CALL_BYTES:  # whatever is in it has room: small calls cost next to nothing here
                self._spend(after - at)
                return
        self.add(at, after, below)

    def _count_calls(self, count: int) -> None:
        self._calls += count
        if self._calls > MAX_CALLS:
            raise OverLimitError("message_calls", "stream", "calls", f"must be at most {MAX_CALLS} a message")
        self._room_bytes += CALL_BYTES * count

    def _spend(self, nbytes: int) -> None:
        self._room_bytes -= nbytes
        if self._room_bytes < 0:
            rule = f"must have at most {self._most_bytes} bytes beside its tensors' data, and {CALL_BYTES} more a call"
            raise OverLimitError("parameter_bytes", self._subject, "request", rule)
