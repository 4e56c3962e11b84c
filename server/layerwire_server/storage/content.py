"""Folders of files that are named by the sha256 of their bytes.

It knows files and digests; nothing of what is in the files or who points to them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from layerwire_server.storage import durable
from layerwire_server.storage.durable import Piece
from layerwire_server.storage.errors import DamagedError, InvalidNameError, MissingError, StoreFullError

_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_digest(digest: str) -> str:
    """The digest itself.

    Raises:
        InvalidNameError: it isn't 64 hexadecimal digits in lower case.
    """
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidNameError(f"digest must be 64 hexadecimal digits in lower case, got {digest[:80]!r}")
    return digest


class ContentFolder:
    """Files of one kind by digest; several processes may use the folder at a time.

    Args:
        folder: where they are.
        suffix: what their names end with.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder = folder
        self._suffix = suffix
        self._verifications: dict[str, tuple[int, int, int, int]] = {}

    def path(self, digest: str) -> Path:
        """Where a digest's file is, if it is there.

        Raises:
            InvalidNameError: that is no digest.
        """
        return self.folder / (check_digest(digest) + self._suffix)

    def put(self, pieces: Iterable[Piece], room_bytes: int) -> str:
        """Keeps a file, durably, and returns its digest. One that is there already becomes young again.

        Raises:
            StoreFullError: it takes more than `room_bytes`.
            OSError: it can't be written.
        """
        digest = hashlib.sha256()
        with durable.temporary_file(self.folder) as (descriptor, temporary):
            for piece in pieces:
                room_bytes -= memoryview(piece).nbytes
                if room_bytes < 0:
                    raise StoreFullError("the store has reached its limit of bytes")
                durable.write_all(descriptor, piece)
                digest.update(piece)
            os.fsync(descriptor)
            durable.rename(temporary, self.path(digest.hexdigest()))
        return digest.hexdigest()

    def has(self, digest: str) -> bool:
        """Whether a digest's file is there; its bytes aren't looked at."""
        return self.path(digest).is_file()

    def open(self, digest: str, *, check: bool) -> BufferedReader:
        """A digest's file from its start; it stays readable whatever becomes of its name.

        Raises:
            MissingError: it isn't there.
            DamagedError: its bytes aren't what was put. They are summed once a process, in pieces, if `check` is set.
        """
        try:
            with durable.read_errors():
                file = self.path(digest).open("rb")
        except FileNotFoundError:
            raise MissingError(f"the store has no file with digest {digest}") from None
        try:
            if check:
                with durable.read_errors():
                    self._verify(digest, file)
        except BaseException:
            file.close()
            raise
        return file

    def _verify(self, digest: str, file: BufferedReader) -> None:
        if self._verifications.get(digest) == _look_of(file.fileno()):
            return
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise DamagedError(f"the store's file with digest {digest} is damaged")
        self.mark_verified(digest, file.fileno())
        file.seek(0)

    def mark_verified(self, digest: str, descriptor: int) -> None:
        """Remembers that an open file has the bytes of its digest, until its inode, size or mtime is another."""
        self._verifications[digest] = _look_of(descriptor)

    def refresh(self, digest: str) -> None:
        """Makes a file young again, so that no process sweeps it soon; its mtime stays, and with it what was verified.

        Raises:
            MissingError: it isn't there.
        """
        path = self.path(digest)
        try:
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # any utime sets ctime, which sweep goes by
        except FileNotFoundError:
            raise MissingError(f"the store has no file with digest {digest}") from None

    def sweep(self, needed: Collection[str], before_seconds: float) -> int:
        """Deletes files that nobody keeps and temporary ones that a crash left, if older; returns the bytes freed."""
        freed_bytes = sweep_unlocked(self.folder, durable.TEMPORARY_PREFIX, before_seconds)
        for entry in entries(self.folder):
            digest = entry.name.removesuffix(self._suffix)
            stale = digest != entry.name and _DIGEST.fullmatch(digest) is not None and digest not in needed
            if stale and (size := unlink_older(Path(entry.path), before_seconds)):
                self._verifications.pop(digest, None)
                freed_bytes += size
        return freed_bytes


def unlink_older(path: Path, before_seconds: float) -> int:
    """Deletes a file if nothing happened to it since then; returns the bytes freed."""
    try:
        status = path.stat(follow_symlinks=False)
        if status.st_ctime >= before_seconds:
            return 0
        path.unlink()
    except FileNotFoundError:  # another process was faster
        return 0
    return status.st_size


def _look_of(descriptor: int) -> tuple[int, int, int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def sweep_unlocked(folder: Path, prefix: str, before_seconds: float) -> int:
    """Deletes files that start with `prefix`, that nobody has locked, and to which nothing happened since then."""
    freed_bytes = 0
    for entry in entries(folder):
        if not entry.name.startswith(prefix):
            continue
        path = Path(entry.path)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if durable.lock_now(descriptor) and durable.is_at(descriptor, path):
                freed_bytes += unlink_older(path, before_seconds)
        finally:
            os.close(descriptor)
    return freed_bytes


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The plain files in a folder; none if there is no folder, as in a directory that was prepared outside."""
    try:
        with os.scandir(folder) as folder_entries:
            yield from (entry for entry in folder_entries if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return


def total_bytes(folder: Path) -> int:
    """Bytes of all files in a folder, temporary ones too."""
    total = 0
    for entry in entries(folder):
        try:
            total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # renamed or deleted meanwhile
            continue
    return total
