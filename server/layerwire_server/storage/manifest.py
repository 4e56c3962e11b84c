"""A manifest: one file that maps all names of a kind to what they point to, replaced as a whole.

It knows JSON and files; what an entry says is its owner's business.

Why one file, when a name could be a file of its own: thousands of names change at once or not at all, with three fsyncs
instead of thousands; a name never becomes a path; a reader needs no lock and no write permission, so a directory that
is mounted read-only or comes from elsewhere works. SQLite was weighed: its write-ahead log needs shared memory beside
the file, which network volumes and read-only mounts don't have, and its rollback journal needs a writer to clean up
before a reader may read. The price is that one changed name rewrites all: some 20 ms among 5,000 names, most of it
JSON, against 1 ms among few.

    {"change": "9f86d081884c7d65", "names": {"net/fc.weight": {...}, ...}}

`change` is new and random with each write and stands at the start, since neither times nor inodes tell two changes
within one tick of the file system's clock apart. Reading it costs an open, which also makes network file systems look
again. A manifest written by hand may lack it; then size, mtime and inode have to do.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from layerwire_server.storage import durable
from layerwire_server.storage.errors import DamagedError, StoreFullError
from layerwire_server.storage.names import check_name

_HEAD_BYTES = 64
_MAX_BYTES = 256 << 20

Entry = TypeVar("Entry")
Signature = tuple[int, int, int, int, bytes]


class Manifest(Generic[Entry]):
    """Names of one kind; many processes may read while one, which holds the store's lock, replaces them.

    Args:
        path: the file.
        decode: makes an entry of its JSON; raises ValueError, TypeError or LookupError if that is none.
        encode: the reverse.
    """

    def __init__(self, path: Path, decode: Callable[[Any], Entry], encode: Callable[[Entry], Any]) -> None:
        self._path = path
        self._decode = decode
        self._encode = encode
        self._cache: tuple[Signature | None, Mapping[str, Entry]] = (None, MappingProxyType({}))

    def signature(self) -> Signature | None:
        """What differs after every change, by whatever process; None as long as there is no file."""
        try:
            with durable.read_errors(), self._path.open("rb", buffering=0) as file:
                return _signature(file.fileno())
        except FileNotFoundError:
            return None

    def read(self) -> Mapping[str, Entry]:
        """All names, sorted, as they are now; what was returned never changes.

        Raises:
            DamagedError: the file is no manifest.
        """
        try:
            with durable.read_errors():
                file = self._path.open("rb")
        except FileNotFoundError:
            return MappingProxyType({})
        with file, durable.read_errors():
            signature = _signature(file.fileno())
            last, entries = self._cache
            if last != signature:
                entries = self._parse(file.read())
                self._cache = (signature, entries)
        return entries

    def replace(self, entries: Mapping[str, Entry], room_bytes: int) -> None:
        """Puts these names in place of all that were there, durably.

        Raises:
            StoreFullError: they take more than `room_bytes` beyond what the old ones took.
            OSError: they can't be written; the old ones stay.
        """
        entries = MappingProxyType(dict(sorted(entries.items())))
        names = {name: self._encode(entry) for name, entry in entries.items()}
        content = json.dumps({"change": secrets.token_hex(8), "names": names}, separators=(",", ":")).encode()
        signature = self.signature()
        more_bytes = len(content) - (signature[2] if signature else 0)
        if more_bytes > max(0, room_bytes) or len(content) > _MAX_BYTES:  # names may be deleted from a full store
            raise StoreFullError("the store has reached its limit of bytes")
        durable.write_file(self._path, content)
        self._cache = (self.signature(), entries)

    def _parse(self, content: bytes) -> Mapping[str, Entry]:
        try:
            names = json.loads(content)["names"]
            entries = {check_name(name): self._decode(entry) for name, entry in sorted(names.items())}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise DamagedError(f"names/{self._path.name} is no manifest: {str(error)[:200]}") from error
        return MappingProxyType(entries)


def _signature(descriptor: int) -> Signature:
    status = os.fstat(descriptor)
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, head
