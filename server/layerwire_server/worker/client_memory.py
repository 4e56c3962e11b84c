"""Memory that gateways share with clients of this host, as a worker sees it: data to read and room for answers.

It knows the contract's SharedData; nothing of calls or lanes. Who knows a memory's name may use it: names hold 16
random bytes. A client can write to its memory at any time, so nothing that was checked there may be used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import layerwire_pb2
from layerwire.wire import protobuf
from layerwire.wire.shared_memory import PAGE_BYTES, Memory, SharedMemoryError, aligned_size

log = logging.getLogger(__name__)

CLIENT_MEMORY = "layerwire-client"  # which memories these are, in /proc
_RANGES = layerwire_pb2.AnswerGroup.SHARED_RANGES_FIELD_NUMBER


class AnswerRoom(NamedTuple):
    """Where a call's answer may be put.

    Attributes:
        memory: the client's.
        start: where the room begins.
        nbytes: how large it is.
        count_copies: called with the bytes that are copied there.
    """

    memory: Memory
    start: int
    nbytes: int
    count_copies: Callable[[int], None]

    def put(self, outputs: Sequence[memoryview], is_wanted: Callable[[], bool]) -> bytes | None:
        """The serialized ranges where the outputs now lie; None if they don't fit, or the room may be another's by now.

        A worker that was cut off because it hung may come to this late, when another has answered the call and the
        client has put the room to other use. So the room is locked while it is written to, and whether the answer is
        wanted is asked when it is: who cuts a worker off does so before another is given the call, so that either the
        worker finds itself cut off, or the others find the room locked.
        """
        ranges, end = b"", self.start
        places = []
        for output in outputs:
            places.append(end)
            ranges += protobuf.field(
                _RANGES, layerwire_pb2.SharedMemoryRange(start=end, nbytes=len(output)).SerializeToString()
            )
            end += aligned_size(len(output))
        if end - self.start > self.nbytes:
            return None
        if not self.memory.lock(self.start, self.nbytes):
            return None
        try:
            if not is_wanted():
                return None
            for place, output in zip(places, outputs, strict=True):
                self.memory.write(place, [output])
                self.count_copies(len(output))
        finally:
            self.memory.unlock(self.start, self.nbytes)
        return ranges


class ClientMemories:
    """The memories that calls named, opened once.

    Args:
        count_copies: called with the bytes of answers that are copied into them.
    """

    def __init__(self, count_copies: Callable[[int], None] = lambda _: None) -> None:
        self._memories: dict[bytes, Memory] = {}
        self._has_failed = False
        self._count_copies = count_copies

    def data(self, shared: layerwire_pb2.SharedData) -> list[memoryview]:
        """The data of calls, where they lie.

        Raises:
            InvalidArgumentError: there is no such memory, or a range isn't within it.
        """
        memory = self._memory(shared.memory)
        return [self._range(memory, place) for place in shared.ranges]

    def room(self, shared: layerwire_pb2.SharedData) -> AnswerRoom | None:
        """Where their answer may be put.

        Raises:
            InvalidArgumentError: as `data`.
        """
        if not shared.HasField("room"):
            return None
        memory = self._memory(shared.memory)
        self._range(memory, shared.room)
        return AnswerRoom(memory, shared.room.start, shared.room.nbytes, self._count_copies)

    def sweep(self) -> None:
        """Lets go of those that no gateway has any more."""
        self._memories = {name: memory for name, memory in self._memories.items() if memory.is_at(name)}

    def _memory(self, name: bytes) -> Memory:
        memory = self._memories.get(name)
        if memory is None:
            try:
                memory = Memory.open(name, CLIENT_MEMORY)
            except SharedMemoryError as error:  # a wrong name, or none of this process's limits lets it in
                if not self._has_failed:
                    log.warning("memory of a client can't be read, and large tensors come by gRPC: %s", error)
                self._has_failed = True
                raise InvalidArgumentError("stream: there is no such shared memory", field="memory") from None
            self._memories[name] = memory
        return memory

    @staticmethod
    def _range(memory: Memory, place: layerwire_pb2.SharedMemoryRange) -> memoryview:
        start, nbytes = place.start, place.nbytes
        if not (PAGE_BYTES <= start <= memory.nbytes and nbytes <= memory.nbytes - start):
            rule = f"must be within {PAGE_BYTES} to {memory.nbytes}, got {nbytes} bytes at {start}"
            raise InvalidArgumentError(f"stream: a range of shared memory {rule}", field="shared")
        return memory.view(start, nbytes).toreadonly()
