"""Memory that a gateway shares with clients of its host: made when a stream asks, let go with the stream, bounded.

It knows how much there may be, and how a call says what of it is meant; nothing of what lies there, and no stream.
"""

from __future__ import annotations

import logging

from google.protobuf.message import DecodeError

from layerwire.v1 import layerwire_pb2
from layerwire.wire.protobuf import MalformedError
from layerwire.wire.shared_memory import Memory, SharedMemoryError

log = logging.getLogger(__name__)

SHARED_MARK = b"\x0a\x20"  # a SharedData begins so: with the 32 bytes of a memory's name
_NAME = "layerwire-client"  # as workers know them
_MOST_BYTES = 256 * 1024**2  # of one stream, unless messages may be larger; pages that nobody wrote to cost nothing
_MOST_MESSAGES = 3  # it can hold: a call's data, its answer, and the last answer, which the caller has still
_LEAST_BYTES = 4 * 1024**2  # less isn't worth it


class MemoryBudget:
    """How much memory a gateway's streams may still have.

    Args:
        nbytes: most bytes of all; no stream alone has what another could do with.
        max_message_bytes: most bytes of a message.
    """

    def __init__(self, nbytes: int, max_message_bytes: int = 0) -> None:
        self._nbytes = nbytes
        self._has_failed = False
        self._most_bytes = max(_MOST_BYTES, min(_MOST_MESSAGES * max_message_bytes, nbytes - _MOST_BYTES))

    @property
    def is_open(self) -> bool:
        """Whether there may be any at all."""
        return self._nbytes > 0

    def make(self) -> Memory | None:
        """One for a stream; None if there is no room, or the system has none."""
        nbytes = min(self._nbytes, self._most_bytes)
        if nbytes < _LEAST_BYTES:
            return None
        try:
            memory = Memory.create(_NAME, nbytes)
        except OSError as error:  # no more descriptors, or no more memory: not every stream's calls are to say so
            if not self._has_failed:
                log.warning("no memory can be shared with clients, whose tensors come by gRPC: %s", error)
            self._has_failed = True
            return None
        self._has_failed = False
        self._nbytes -= memory.nbytes
        return memory

    def release(self, memory: Memory) -> None:
        """A stream with a memory has ended."""
        self._nbytes += memory.nbytes


def answer(memory: Memory | None) -> bytes:
    """What a stream that asks for memory is answered."""
    name = b"" if memory is None else memory.offer
    message = layerwire_pb2.StreamResponse(memory=layerwire_pb2.SharedMemory(name=name))
    content: bytes = message.SerializeToString()
    return content


class SharedSpans:
    """What a serialized SharedData says of where calls' data are.

    Attributes:
        data: where each piece lies in the memory.

    Raises:
        MalformedError: it is none.
    """

    def __init__(self, content: bytes) -> None:
        try:
            shared = layerwire_pb2.SharedData.FromString(content)
        except DecodeError:
            raise MalformedError from None
        self._name = shared.memory
        self.data = [(place.start, place.start + place.nbytes) for place in shared.ranges]

    def memory(self) -> Memory:
        """The memory, which ends with its stream.

        Raises:
            MalformedError: there is none, or the pieces aren't within it.
        """
        try:
            memory = Memory.open(self._name, _NAME)
        except SharedMemoryError:
            raise MalformedError from None
        if any(end > memory.nbytes for _, end in self.data):
            raise MalformedError
        return memory
