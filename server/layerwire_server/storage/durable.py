"""Files that are there whole or not at all, whenever the process or the machine stops.

It knows descriptors and bytes; neither what they mean nor where the store keeps what.

A file is written under a temporary name in its own folder, fsynced, renamed, and the folder fsynced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layerwire_server.storage.errors import ReadOnlyError, StoreError, StoreFullError

Piece = bytes | bytearray | memoryview

PIECE_BYTES = 1 << 20
TEMPORARY_PREFIX = ".new-"

_FULL = "the store's disk is full"
_READ_ONLY = "the store can't be written: it is mounted read-only or belongs to another user"
_REASONS: dict[int, tuple[type[StoreError], str]] = {
    errno.ENOSPC: (StoreFullError, _FULL),
    errno.EDQUOT: (StoreFullError, _FULL),
    errno.EFBIG: (StoreFullError, "the file is larger than the store's disk takes"),
    errno.EROFS: (ReadOnlyError, _READ_ONLY),
    errno.EACCES: (ReadOnlyError, _READ_ONLY),
    errno.EPERM: (ReadOnlyError, _READ_ONLY),
    errno.ENOLCK: (StoreError, "the store's file system has no locks"),
    errno.EOPNOTSUPP: (StoreError, "the store's file system has no locks"),
}

READ_ONLY_ERRNOS = {number for number, (kind, _) in _REASONS.items() if kind is ReadOnlyError}


@contextmanager
def write_errors() -> Iterator[None]:
    """Turns what the operating system says about a write into the store's errors."""
    try:
        yield
    except OSError as error:
        kind, text = _REASONS.get(error.errno or 0, (StoreError, f"the store can't be written: {error.strerror}"))
        raise kind(text) from error


@contextmanager
def read_errors() -> Iterator[None]:
    """Turns what the operating system says about a read into the store's error, but for a file that isn't there."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"the store can't be read: {error.strerror}") from error


def write_all(descriptor: int, piece: Piece) -> None:
    """Writes a piece to the end, however many calls that takes."""
    rest = memoryview(piece)
    if rest.nbytes:  # an empty view can't be cast
        rest = rest.cast("B")
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest[:PIECE_BYTES]) :]


@contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[int, Path]]:
    """Descriptor and path of a new file in a folder; it is gone afterwards, unless it was renamed.

    It is locked as long as it is written, so that a sweep tells it from what a crash left.
    """
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=TEMPORARY_PREFIX)
    path = Path(name)
    try:
        lock_now(descriptor)
        yield descriptor, path
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Gives a file, fsynced already, its name, and returns when that will outlast a loss of power."""
    os.replace(source, target)  # noqa: PTH105  # beside os.fsync, which Path doesn't have
    for folder in {source.parent, target.parent}:
        sync_folder(folder)


def write_file(path: Path, content: bytes) -> None:
    """Replaces a file's content, whole or not at all."""
    with temporary_file(path.parent) as (descriptor, temporary):
        write_all(descriptor, content)
        os.fsync(descriptor)
        rename(temporary, path)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Keeps out every other process and thread that holds the same lock file; it ends with the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock_now(descriptor: int) -> bool:
    """Locks an open file against every other opener of it until it is closed; False if somebody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one with this name, which may have been renamed or deleted meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
