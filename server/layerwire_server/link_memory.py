"""The memory that one end of a link lends to the other: payloads too large for a socket lie there, written once.

It knows shared memory; neither frames nor sockets.

The owner offers it by its process and descriptor, which only processes of the same user can open. The peer reads what
is lent where it lies, and says when nothing of it is needed any more. With the link the memory ends: what a peer that
is cut off still reads stays as it is, since nobody writes there again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Callable, Sequence

from layerwire.wire.shared_memory import IS_AVAILABLE, PAGE_BYTES, Memory, Ranges, SharedMemoryError

_OFFER = struct.Struct("<QQ16s")  # process, descriptor, and what stands at the beginning of the memory
RANGE = struct.Struct("<QQ")  # where a payload begins, and its length


class OwnMemory:
    """What this end lends.

    Attributes:
        is_shared: whether the peer has said that it can read it.

    Args:
        nbytes: most bytes lent at once.

    Raises:
        OSError: the system has no such memory.
    """

    def __init__(self, nbytes: int) -> None:
        if not IS_AVAILABLE:
            raise OSError("no memory files here")
        self._memory = Memory.create("layerwire-link", PAGE_BYTES + nbytes)
        self._ranges = Ranges(PAGE_BYTES, self._memory.nbytes)
        self._mark = secrets.token_bytes(16)
        self._memory.write(0, [self._mark])
        self.is_shared = False

    @property
    def offer(self) -> bytes:
        """What lets the peer find it."""
        return _OFFER.pack(os.getpid(), self._memory.descriptor, self._mark)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lent."""
        return not len(self._ranges)

    def lend(self, pieces: Sequence[bytes | memoryview], nbytes: int) -> bytes | None:
        """The RANGE where the pieces now lie one after another; None if there is no room."""
        start = self._ranges.lend(nbytes) if self.is_shared else None
        if start is None:
            return None
        self._memory.write(start, pieces)
        return RANGE.pack(start, nbytes)

    def release(self, start: int) -> None:
        """The peer needs no more of what begins there."""
        self._ranges.release(start)

    def give_back(self) -> None:
        """Gives the pages to the system, if nothing is lent."""
        if self.is_idle:
            self._memory.give_back()


class PeerMemory:
    """What the other end lends.

    Args:
        offer: the peer's.

    Raises:
        SharedMemoryError: it is no offer, or leads to nothing that can be shared.
    """

    def __init__(self, offer: bytes | memoryview) -> None:
        if len(offer) != _OFFER.size:
            raise SharedMemoryError("no offer of memory")
        process, descriptor, mark = _OFFER.unpack(offer)
        try:
            # O_NONBLOCK: whatever the peer points at, opening it must not wait.
            own = os.open(f"/proc/{process}/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            self._memory = Memory(own)
        except OSError as error:
            raise SharedMemoryError(str(error)) from None
        if bytes(self._memory.view(0, len(mark))) != mark:
            raise SharedMemoryError("another memory than was offered")

    def payload(self, place: bytes | memoryview, max_bytes: int, on_release: Callable[[int], None]) -> memoryview:
        """The bytes of a RANGE, read-only.

        Args:
            place: the RANGE.
            max_bytes: the longest that is accepted.
            on_release: called, by whatever thread, with its beginning when nothing refers to it any more.

        Raises:
            SharedMemoryError: it isn't within the memory, or too long.
        """
        if len(place) != RANGE.size:
            raise SharedMemoryError("no range of memory")
        start, nbytes = RANGE.unpack(place)
        if nbytes > max_bytes or start < PAGE_BYTES:
            raise SharedMemoryError(f"{nbytes} bytes at {start} are out of range")

        def release() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and the link with it
                on_release(start)

        return self._memory.view(start, nbytes, release).toreadonly()
