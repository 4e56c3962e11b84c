"""The memory that a client shares with a server of its own host: large tensors are put there, and answers come there.

It knows arrays' places in memory; neither calls nor connections. Any thread may use it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from layerwire.v1 import layerwire_pb2 as messages
from layerwire.wire.shared_memory import PAGE_BYTES, Memory, Ranges, aligned_size

LARGE_BYTES = 262144  # from here on calls and answers go by shared memory
_NAME = "layerwire-client"  # as servers name such memory


class Loan(NamedTuple):
    """What a call has of a memory until it is answered: its data, and room for its answer, if it needs some there."""

    shared: messages.SharedData
    data: Sequence[memoryview]
    room: memoryview | None

    def answer(self, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """The data of an answer that was put into the room.

        Raises:
            ValueError: the server says that it put it elsewhere.
        """
        begin, views = self.shared.room.start, []
        for start, nbytes in ranges:
            if self.room is None or not (begin <= start and start + nbytes <= begin + len(self.room)):
                raise ValueError(f"{nbytes} bytes at {start} are not in the call's room")
            views.append(self.room[start - begin : start - begin + nbytes])
        return views


class ClientMemory:
    """Memory of one stream. What it lends is released when no array or view refers to it any more.

    Args:
        name: what the server said of it.

    Raises:
        SharedMemoryError: it can't be shared: the server is on another host, in another container, or another user's.
    """

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._memory = Memory.open(name, _NAME)
        self._address = self._memory.address()
        self._ranges = Ranges(PAGE_BYTES, self._memory.nbytes)
        self._lock = threading.Lock()
        self._locked_sizes: dict[int, int] = {}  # ranges that are free but for a worker that writes there, by start
        self._releases: deque[int] = deque()  # by finalizers, which may run while the lock is held

    def lend(self, nbytes: int) -> memoryview | None:
        """So many writable bytes; None if there is no room."""
        with self._lock:
            while self._releases:
                self._ranges.release(self._releases.popleft())
            start = self._lend(nbytes)
        if start is None:
            return None
        return self._memory.view(start, nbytes, partial(self._releases.append, start))

    def elements(self, array: npt.NDArray[Any]) -> bytes | memoryview:
        """An array's elements, row-major: where they lie if they lie here, else copied to here if they are many."""
        if array.nbytes < LARGE_BYTES:
            return array.tobytes()
        if array.flags.c_contiguous:
            own = array.reshape(-1).view(np.uint8).data
            if self._start_of(own) is not None:
                return own
        copy = self.lend(array.nbytes)
        if copy is None:
            return array.tobytes()
        np.copyto(np.frombuffer(copy, array.dtype).reshape(array.shape), array)
        return copy

    def loan(self, data: Sequence[bytes | memoryview], answer_sizes: Sequence[int]) -> Loan | None:
        """What a call with these data, and answers of such sizes, needs of the memory; None where that isn't to be had.

        Data that lie elsewhere are copied to here: small ones, and those of calls that were made before it was known
        which of several servers they would go to. Where none are large there is no loan.
        """
        if all(len(piece) < LARGE_BYTES for piece in data):
            return None
        shared, views = messages.SharedData(memory=self._name), []
        for piece in data:
            view, start = piece, self._start_of(piece)
            if start is None:
                copy = self.lend(len(piece))
                if copy is None:
                    return None
                copy[:] = piece
                view, start = copy, self._start_of(copy)
            assert isinstance(view, memoryview)
            views.append(view)
            shared.ranges.add(start=PAGE_BYTES if start is None else start, nbytes=len(view))
        room_bytes = sum(map(aligned_size, answer_sizes))
        room = self.lend(room_bytes) if room_bytes >= LARGE_BYTES else None
        if room is not None:
            shared.room.start, shared.room.nbytes = self._start_of(room) or 0, len(room)
        return Loan(shared, views, room)

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
        """An array that lies here, not initialised; None if it is small, or there is no room."""
        element = np.dtype(dtype)
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        nbytes = math.prod(sizes) * element.itemsize
        data = self.lend(nbytes) if nbytes >= LARGE_BYTES and not element.hasobject else None
        return None if data is None else np.frombuffer(data, element).reshape(sizes)

    def _lend(self, nbytes: int) -> int | None:
        """Where a range begins that nobody writes to: a worker that was given up may still do so, until it is gone."""
        for first in [first for first, size in self._locked_sizes.items() if not self._memory.is_locked(first, size)]:
            del self._locked_sizes[first]
            self._ranges.release(first)
        while True:
            start = self._ranges.lend(nbytes)
            if start is None or not self._memory.is_locked(start, nbytes):
                return start
            self._locked_sizes[start] = nbytes

    def _start_of(self, data: bytes | memoryview) -> int | None:
        """Where data lie in it; None if they lie elsewhere."""
        if not isinstance(data, memoryview) or not len(data):
            return None
        start: int = np.frombuffer(data, np.uint8).__array_interface__["data"][0] - self._address
        return start if PAGE_BYTES <= start <= self._memory.nbytes - len(data) else None
