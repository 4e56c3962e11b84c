"""The memory that one end of a link lends to the other: payloads too large for a socket lie there, written once.

It knows shared memory; neither frames nor sockets.

The peer reads what is lent where it lies, and says when nothing of it is needed any more. With the link the memory
ends: what a peer that is cut off still reads stays as it is, since nobody writes there again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import partial

from layerwire.wire.shared_memory import PAGE_BYTES, Memory, Ranges, SharedMemoryError, aligned_size

RANGE = struct.Struct("<QQ")  # where a payload begins, and its length
_MOST_LENT_BYTES = 64 * 1024**2  # at once, unless one payload is more: all of it is in memory while the peer is behind
_IDLE_SECONDS = 2.0  # then the pages of what was lent go back to the system
_NAME = "layerwire-link"
_HERE, _PEER = 1, 2


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
        self._memory = Memory.create(_NAME, nbytes)
        self._ranges = Ranges(PAGE_BYTES, self._memory.nbytes)
        self._rooms: dict[int, int] = {}  # first page of each room -> who needs it: this end, the peer, or both
        self.is_shared = False

    @property
    def offer(self) -> bytes:
        """What lets the peer find it."""
        return self._memory.offer

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lent."""
        return not len(self._ranges)

    def room(self, nbytes: int, on_release: Callable[[int], None]) -> memoryview | None:
        """Where a payload may be written that is lent later as it lies; None if there is no room.

        Args:
            nbytes: of the payload.
            on_release: called, by whatever thread, when nothing here refers to it any more; `leave` is to follow.
        """
        start = self._start(nbytes, _MOST_LENT_BYTES // 2)  # what is never sent must not take all
        if start is None:
            return None
        self._rooms[start - start % PAGE_BYTES] = _HERE
        return self._memory.view(start, nbytes, partial(on_release, start))

    def lend(self, pieces: Sequence[bytes | memoryview], nbytes: int) -> tuple[bytes, int] | None:
        """The RANGE where the pieces now lie one after another, and bytes copied for that; None if there is no room."""
        start = self._room_of(pieces[0]) if len(pieces) == 1 else None
        if start is not None:
            self._rooms[start - start % PAGE_BYTES] |= _PEER
            return RANGE.pack(start, nbytes), 0
        start = self._start(nbytes, _MOST_LENT_BYTES)
        if start is None:
            return None
        self._memory.write(start, pieces)
        return RANGE.pack(start, nbytes), nbytes

    def release(self, start: int) -> None:
        """The peer needs no more of what begins there."""
        self._release(start, _PEER)

    def leave(self, start: int) -> None:
        """This end needs no more of the room that begins there."""
        self._release(start, _HERE)

    def _release(self, start: int, who: int) -> None:
        page = start - start % PAGE_BYTES
        others = self._rooms.pop(page, 0) & ~who
        if others:
            self._rooms[page] = others
        else:
            self._ranges.release(page)

    def _start(self, nbytes: int, most_lent_bytes: int) -> int | None:
        """Where a payload may begin that ends where a cache line does.

        A message mostly ends with a tensor's data, which then lie where kernels can read them.
        """
        shift = aligned_size(nbytes) - nbytes
        lent_bytes = self._ranges.lent_bytes
        has_room = not lent_bytes or lent_bytes + nbytes <= most_lent_bytes
        start = self._ranges.lend(shift + nbytes) if self.is_shared and has_room else None
        return None if start is None else start + shift

    def _room_of(self, payload: bytes | memoryview) -> int | None:
        """Where a payload begins that lies in a room; None for others."""
        if not isinstance(payload, memoryview) or payload.readonly or not len(payload):
            return None
        start = ctypes.addressof(ctypes.c_char.from_buffer(payload)) - self._memory.address()
        return start if start - start % PAGE_BYTES in self._rooms else None

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
        self._memory = Memory.open(offer, _NAME, is_writable=False)

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


class LinkMemory:
    """What the two ends of a link lend each other; for the loop's thread.

    Attributes:
        own: what this end lends, once that was offered; None also where the system has none.

    Args:
        loop: the link's.
        nbytes: most bytes that this end may lend at once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, nbytes: int) -> None:
        self._loop = loop
        self._nbytes = nbytes
        self._has_offered = False
        self.own: OwnMemory | None = None
        self._peers: PeerMemory | None = None
        self._trim: asyncio.TimerHandle | None = None

    def first_offer(self) -> bytes | None:
        """What lets the peer find this end's memory, when it is to be offered; None if it was, or there is none."""
        if self._has_offered:
            return None
        self._has_offered = True
        with contextlib.suppress(OSError):
            self.own = OwnMemory(self._nbytes)
        return None if self.own is None else self.own.offer

    def share(self) -> None:
        """The peer can read what was offered.

        Raises:
            SharedMemoryError: nothing was.
        """
        self._own_or_error().is_shared = True

    def open_peers(self, offer: bytes | memoryview) -> bool:
        """Whether what the peer offers can be read here, from now on."""
        try:
            self._peers = PeerMemory(offer)
        except SharedMemoryError:
            return False
        return True

    def payload(self, place: bytes | memoryview, max_bytes: int, on_release: Callable[[int], None]) -> memoryview:
        """What the peer lends; see PeerMemory."""
        if self._peers is None:
            raise SharedMemoryError("a range of memory that was never offered")
        return self._peers.payload(place, max_bytes, on_release)

    def lend(self, pieces: Sequence[bytes | memoryview], nbytes: int) -> tuple[bytes, int] | None:
        """See OwnMemory."""
        self._end_trim()
        return None if self.own is None else self.own.lend(pieces, nbytes)

    def room(self, nbytes: int) -> memoryview | None:
        """See OwnMemory; it is released by itself."""
        memory = self.own
        if memory is None:
            return None
        self._end_trim()

        def on_release(start: int) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._leave, memory, start)

        return memory.room(nbytes, on_release)

    def release(self, start: int) -> None:
        """The peer needs no more of what begins there.

        Raises:
            SharedMemoryError: nothing was offered.
        """
        self._own_or_error().release(start)
        self._begin_trim()

    def close(self) -> None:
        """The link has ended; views stay as they are."""
        self._end_trim()
        self.own = self._peers = None

    def _leave(self, memory: OwnMemory, start: int) -> None:
        memory.leave(start)
        self._begin_trim()

    def _own_or_error(self) -> OwnMemory:
        if self.own is None:
            raise SharedMemoryError("no memory was offered")
        return self.own

    def _begin_trim(self) -> None:
        if self.own is not None and self.own.is_idle:
            self._end_trim()
            self._trim = self._loop.call_later(_IDLE_SECONDS, self.own.give_back)

    def _end_trim(self) -> None:
        if self._trim is not None:
            self._trim.cancel()
            self._trim = None
