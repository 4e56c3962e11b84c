"""Memory that processes of one host share: sealed files without names, mapped whole, and which ranges are lent.

It knows the kernel's calls; nothing of who shares, or of what the bytes mean.

A file of memfd_create lies in no file system, so a small /dev/shm doesn't bound it. It is sealed at its full size: who
has mapped it can't be killed (SIGBUS) by another who shortens it. Its pages cost nothing until they are written to.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import fcntl
import mmap
import os
import secrets
import stat
import struct
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

PAGE_BYTES = mmap.PAGESIZE
ALIGNMENT_BYTES = 64  # of each tensor: a cache line, where kernels can read
_MARK_BYTES = 16
IS_AVAILABLE = hasattr(os, "memfd_create") and hasattr(mmap, "MADV_REMOVE")  # Linux
_OFFER = struct.Struct("<QQ16s")  # process, descriptor, and what stands at the beginning of the memory
_FLOCK = struct.Struct("@hhqqi4x")  # fcntl's struct flock
_SEALS = (
    getattr(fcntl, "F_SEAL_SHRINK", 0) | getattr(fcntl, "F_SEAL_GROW", 0) | getattr(fcntl, "F_SEAL_SEAL", 0)
)  # absent where IS_AVAILABLE is False


if IS_AVAILABLE:  # a map that Python itself knows as read-only has no views that tell when they are released
    _MPROTECT = ctypes.CDLL(None).mprotect
    _MPROTECT.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int


class SharedMemoryError(Exception):
    """A descriptor is no memory to share, or a range lies outside of it."""


class Memory:
    """A file in memory, mapped whole.

    Attributes:
        descriptor: the file's.
        nbytes: its size.

    Args:
        descriptor: of a sealed file; closed with this object.
        is_writable: whether it may be written to here; else to do so ends this process, and harms no other.

    Raises:
        SharedMemoryError: it is none.
        OSError: it can't be mapped.
    """

    def __init__(self, descriptor: int, *, is_writable: bool = True) -> None:
        self._close = weakref.finalize(self, os.close, descriptor)
        about = os.fstat(descriptor)
        try:
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError:  # no file in memory
            seals = 0
        if not stat.S_ISREG(about.st_mode) or seals & _SEALS != _SEALS or about.st_size < PAGE_BYTES:
            raise SharedMemoryError("the descriptor is no sealed memory")
        self.descriptor = descriptor
        self.nbytes = about.st_size
        self._map = mmap.mmap(descriptor, self.nbytes)
        if not is_writable and _MPROTECT(self.address(), self.nbytes, mmap.PROT_READ):
            raise SharedMemoryError("the memory can't be protected")

    @classmethod
    def create(cls, name: str, nbytes: int) -> Memory:
        """A new one. Its first page isn't to be used: it begins with random bytes, by which others know it again.

        Raises:
            OSError: the system has none.
        """
        if not IS_AVAILABLE:
            raise OSError("no memory files on this system")
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, PAGE_BYTES + _whole_pages(nbytes))
            os.pwrite(descriptor, secrets.token_bytes(_MARK_BYTES), 0)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    @classmethod
    def open(cls, offer: bytes | memoryview, name: str, *, is_writable: bool = True) -> Memory:
        """The memory that another process offers. Only a process of the same user can open it.

        Args:
            offer: the other's `offer`.
            name: what it was created with.
            is_writable: as for the class.

        Raises:
            SharedMemoryError: it is no offer, or leads to no such memory.
        """
        if len(offer) != _OFFER.size or not IS_AVAILABLE:
            raise SharedMemoryError("no offer of memory")
        process, descriptor, mark = _OFFER.unpack(offer)
        path = Path(f"/proc/{process}/fd/{descriptor}")
        try:
            if not str(path.readlink()).startswith(f"/memfd:{name} "):  # opening something else might do something
                raise SharedMemoryError("another descriptor than was offered")
            memory = cls(os.open(path, os.O_RDWR | os.O_CLOEXEC), is_writable=is_writable)
        except (OSError, ValueError) as error:
            raise SharedMemoryError(str(error)) from None
        if bytes(memory.view(0, _MARK_BYTES)) != mark:
            raise SharedMemoryError("another memory than was offered")
        return memory

    @property
    def offer(self) -> bytes:
        """What lets another process of the same user open it, while this one has it."""
        return _OFFER.pack(os.getpid(), self.descriptor, bytes(self.view(0, _MARK_BYTES)))

    def is_at(self, offer: bytes) -> bool:
        """Whether the process that offered it still has it."""
        process, descriptor, _ = _OFFER.unpack(offer)
        try:
            about = Path(f"/proc/{process}/fd/{descriptor}").stat()
        except OSError:
            return False
        return about.st_ino == os.fstat(self.descriptor).st_ino

    def address(self) -> int:
        """Where it is mapped in this process."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def view(self, start: int, nbytes: int, on_release: Callable[[], None] | None = None) -> memoryview:
        """The bytes of a range, writable.

        Args:
            start: where it begins.
            nbytes: how long it is.
            on_release: called, by whatever thread, once nothing refers to the view or to any part or tensor of it.

        Raises:
            SharedMemoryError: the range isn't within the memory.
        """
        if not (0 <= start <= self.nbytes and 0 <= nbytes <= self.nbytes - start):
            raise SharedMemoryError(f"{nbytes} bytes at {start} are not within {self.nbytes}")
        array = (ctypes.c_char * nbytes).from_buffer(self._map, start)
        if on_release is not None:
            weakref.finalize(array, on_release).atexit = False
        return memoryview(array).cast("B")

    def write(self, start: int, pieces: Iterable[bytes | memoryview]) -> None:
        """Puts pieces there, one after another.

        Raises:
            ValueError: they don't fit.
        """
        with memoryview(self._map) as target:
            for piece in pieces:
                end = start + len(piece)
                target[start:end] = piece
                start = end

    def lock(self, start: int, nbytes: int) -> bool:
        """Locks a range until `unlock`, or the end of this process; False if another has locked some of it."""
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, start, nbytes))
        except OSError:
            return False
        return True

    def unlock(self, start: int, nbytes: int) -> None:
        """Ends what `lock` began."""
        fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, start, nbytes))

    def is_locked(self, start: int, nbytes: int) -> bool:
        """Whether another has locked some of a range, who opened the memory for itself."""
        asked = _flock(fcntl.F_WRLCK, start, nbytes)
        answer: bytes = fcntl.fcntl(self.descriptor, fcntl.F_OFD_GETLK, asked)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def give_back(self) -> None:
        """Gives all pages to the system; the memory is all zeros again, also for others who have mapped it."""
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_REMOVE, PAGE_BYTES, self.nbytes - PAGE_BYTES)


class Ranges:
    """Which ranges of a memory are free: whole pages, the lowest first, so that the same few are used again.

    Args:
        start: where the first may begin.
        end: where the last ends.
    """

    def __init__(self, start: int, end: int) -> None:
        self._free = [(_whole_pages(start), end)]
        self._ends: dict[int, int] = {}  # of ranges that are lent, by their starts

    def __len__(self) -> int:
        """How many are lent."""
        return len(self._ends)

    @property
    def lent_bytes(self) -> int:
        """Bytes of all that are lent, in whole pages."""
        return sum(end - start for start, end in self._ends.items())

    def lend(self, nbytes: int) -> int | None:
        """Where a free range of so many bytes begins, which is lent from now on; None if there is none."""
        size = _whole_pages(max(nbytes, 1))
        for place, (start, end) in enumerate(self._free):
            if end - start >= size:
                self._free[place : place + 1] = [(start + size, end)] if end - start > size else []
                self._ends[start] = start + size
                return start
        return None

    def release(self, start: int) -> bool:
        """A range is free again; False if none that is lent begins there."""
        end = self._ends.pop(start, None)
        if end is None:
            return False
        place = bisect.bisect(self._free, (start, end))
        if place < len(self._free) and self._free[place][0] == end:
            end = self._free.pop(place)[1]
        if place and self._free[place - 1][1] == start:
            place -= 1
            start = self._free.pop(place)[0]
        self._free.insert(place, (start, end))
        return True


def _flock(kind: int, start: int, nbytes: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, start, max(nbytes, 1), 0)  # of 0 bytes would be of all


def aligned_size(nbytes: int) -> int:
    """What a tensor of so many bytes takes where another follows."""
    return -(-nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def _whole_pages(nbytes: int) -> int:
    return -(-nbytes // PAGE_BYTES) * PAGE_BYTES
