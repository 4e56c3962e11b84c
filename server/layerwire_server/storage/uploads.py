"""Uploads of weights that may break off and go on: the part of a file that came, and its way into the store.

It knows files, sizes and digests; neither gRPC nor what is in the file. Its methods block on the disk.

A part is DIRECTORY/uploads/<sha256>.part, locked by the process that writes it. One process has one Uploads.
"""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from layerwire_server.storage import durable
from layerwire_server.storage.content import check_digest
from layerwire_server.storage.durable import Piece
from layerwire_server.storage.errors import BusyError, DamagedError, DigestError, MissingError, StoreFullError
from layerwire_server.storage.store import Store

# The store's limit is looked at when an upload begins and after so many bytes, so uploads that share the last room may
# exceed it by this much each.
_ROOM_CHECK_BYTES = 8 << 20


class Progress(NamedTuple):
    """What is there of a file: all of it, or so many bytes from its start."""

    complete: bool
    received_bytes: int


def part_of(store: Store, digest: str) -> Path:
    """Where the part of a file is that hasn't come as a whole, or isn't checked.

    Raises:
        InvalidNameError: that is no digest.
    """
    return store.uploads_folder / f"{check_digest(digest)}.part"


class Uploads:
    """The uploads into a store.

    Args:
        store: where finished files go.
        max_file_bytes: most bytes of one file; None for no limit of its own.
    """

    def __init__(self, store: Store, max_file_bytes: int | None = None) -> None:
        self._store = store
        self._max_file_bytes = max_file_bytes
        self._active: dict[str, Upload] = {}
        self._mutex = threading.Lock()

    def progress(self, digest: str) -> Progress:
        """What is there of a file; one that is complete is kept for another hour at least.

        A damaged file counts as none, so that its next upload mends it. The first look at a file takes as long as
        summing it, unless this process took it.

        Raises:
            InvalidNameError: that is no digest.
        """
        if self._store.has_weights(digest):
            with suppress(MissingError, DamagedError), self._store.open_weights(digest) as file:
                return Progress(complete=True, received_bytes=os.fstat(file.fileno()).st_size)
        try:
            return Progress(complete=False, received_bytes=self._part(digest).stat().st_size)
        except FileNotFoundError:
            return Progress(complete=False, received_bytes=0)

    def begin(self, digest: str, size: int, offset: int = 0) -> Upload:
        """Begins an upload, or goes on with one: what is there beyond `offset` is cut off, the rest is hashed anew.

        An upload of the same file that goes on in this process is ended: its client has come back.

        Raises:
            InvalidNameError: that is no digest.
            DigestError: `offset` is beyond what is there, or beyond `size`.
            BusyError: another process takes the same file, or a newer upload has taken this one's place.
            ReadOnlyError: the directory can't be written.
            StoreFullError: there is no room for `size` bytes.
        """
        part = self._part(digest)
        self._store.check_writable()
        if size < 0 or not 0 <= offset <= size:
            raise DigestError(f"upload: offset must be 0 to the size of {size} bytes, got {offset}")
        if self._max_file_bytes is not None and size > self._max_file_bytes:
            raise StoreFullError(f"upload: a file must have at most {self._max_file_bytes} bytes, got {size}")
        with self._mutex:
            if older := self._active.pop(digest, None):
                older.end("a newer upload of the same file has taken its place")
            with durable.write_errors():
                upload = Upload(self._store, digest, size, part, _locked_part(part))
            self._active = {digest: upload} | {key: other for key, other in self._active.items() if other.is_open}
        try:
            upload.go_on_from(offset)
        except BaseException:
            upload.close()
            raise
        return upload

    def _part(self, digest: str) -> Path:
        return part_of(self._store, digest)


def _locked_part(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        free = durable.lock_now(descriptor)
        if free and durable.is_at(descriptor, path):
            return descriptor
        os.close(descriptor)
        if not free:
            raise BusyError("upload: another process takes the same file; try again when it has ended")
        # it was finished or swept between open and lock


class Upload:
    """One upload; made by `Uploads.begin`. Leaving its `with` block keeps what came, for an hour at least.

    Write all pieces, `seal`, look into the file, then `commit` or `discard`. After any error but BusyError and
    ReadOnlyError the part is gone and the store as before.
    """

    def __init__(self, store: Store, digest: str, size: int, path: Path, descriptor: int) -> None:
        self._store = store
        self._digest = digest
        self._size = size
        self._path = path
        self._descriptor: int | None = descriptor
        self._hash = hashlib.sha256()
        self._received_bytes = 0
        self._unchecked_bytes = 0
        self._is_sealed = False
        self._end_reason = ""
        self._mutex = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return not self._end_reason

    @property
    def received_bytes(self) -> int:
        """Bytes that are there, from the start."""
        return self._received_bytes

    def go_on_from(self, offset: int) -> None:
        """Cuts off what is there beyond `offset` and hashes the rest; `Uploads.begin` does this."""
        with self._mutex, durable.write_errors():
            descriptor = self._open()
            there = os.fstat(descriptor).st_size
            if offset > there:
                raise DigestError(f"upload: offset must be at most the {there} bytes received, got {offset}")
            self._check_room(self._size - there)
            os.ftruncate(descriptor, offset)
            os.lseek(descriptor, 0, os.SEEK_SET)
            while self._received_bytes < offset:
                piece = os.read(self._open(), min(durable.PIECE_BYTES, offset - self._received_bytes))
                if not piece:
                    raise DigestError("upload: the part became shorter while it was read")
                self._take(piece)
            self._unchecked_bytes = 0

    def write(self, piece: Piece) -> None:
        """Takes the next bytes.

        Raises:
            DigestError: they are more than the size; the part is deleted.
            StoreFullError: there is no room; the part is deleted.
            BusyError: a newer upload of the same file has taken this one's place.
        """
        with self._mutex:
            descriptor = self._open()
            if self._received_bytes + memoryview(piece).nbytes > self._size:
                self.discard()
                raise DigestError(f"upload: more bytes came than the size of {self._size}")
            try:
                if self._unchecked_bytes >= _ROOM_CHECK_BYTES:
                    self._check_room(memoryview(piece).nbytes)
                    self._unchecked_bytes = 0
                with durable.write_errors():
                    durable.write_all(descriptor, piece)
            except StoreFullError:
                self.discard()
                raise
            self._take(piece)

    def seal(self) -> Path:
        """Ends the writing and returns the path of the complete file, which is durable but not yet in the store.

        Raises:
            DigestError: its size or its digest is another than was said; the part is deleted.
            BusyError: as for write.
        """
        with self._mutex:
            descriptor = self._open()
            if self._received_bytes != self._size or self._hash.hexdigest() != self._digest:
                nbytes, digest = self._received_bytes, self._hash.hexdigest()
                self.discard()
                raise DigestError(
                    f"upload: must be {self._size} bytes with digest {self._digest}, got {nbytes} with {digest}"
                )
            try:
                with durable.write_errors():
                    os.fsync(descriptor)
            except StoreFullError:
                self.discard()
                raise
            self._is_sealed = True
            return self._path

    def commit(self) -> None:
        """Puts the sealed file into the store.

        Raises:
            BusyError: as for write.
        """
        with self._mutex, durable.write_errors():
            descriptor = self._open()
            assert self._is_sealed, "seal comes before commit"
            files = self._store.weights_files
            durable.rename(self._path, files.path(self._digest))
            files.mark_verified(self._digest, descriptor)
            self.close()

    def discard(self) -> None:
        """Deletes what came."""
        with self._mutex, durable.write_errors():
            if self._descriptor is not None:
                self._path.unlink(missing_ok=True)
                self.close()

    def close(self) -> None:
        """Lets the part lie for another upload to go on with."""
        self.end("it is closed")

    def end(self, reason: str) -> None:
        """Closes the part; every later call says why. Another thread that is just hashing stops soon."""
        self._end_reason = self._end_reason or reason
        with self._mutex:
            if self._descriptor is None:
                return
            if os.fstat(self._descriptor).st_size == 0 and durable.is_at(self._descriptor, self._path):
                self._path.unlink(missing_ok=True)  # nothing to go on with
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        if self._end_reason or self._descriptor is None:
            raise BusyError(f"upload: {self._end_reason}")
        return self._descriptor

    def _check_room(self, more_bytes: int) -> None:
        if more_bytes > self._store.room_bytes():
            raise StoreFullError("the store has reached its limit of bytes")

    def _take(self, piece: Piece) -> None:
        self._hash.update(piece)
        self._received_bytes += memoryview(piece).nbytes
        self._unchecked_bytes += memoryview(piece).nbytes
