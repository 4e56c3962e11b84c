"""Where named weights are kept: tensors by the sha256 of their bytes, and names that point to them.

It knows files and bytes; neither torch nor gRPC, nor what the bytes mean.

    DIRECTORY/weights/<digest>     a serialized Tensor, with data
    DIRECTORY/names/<name>         the digest; '/' in a name is spelled '%2F'

Everything is written under a temporary name, fsynced and renamed, so a crash at any byte leaves the old state.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
from pathlib import Path
from urllib.parse import quote, unquote

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._/-]{0,199}")
_UNNAMED_SECONDS = 60
_DIGEST = re.compile(r"[0-9a-f]{64}")


class StoreError(Exception):
    """What the store holds is damaged."""


def name_is_valid(name: str) -> bool:
    """Whether weights may have this name, by the rule in layerwire.proto."""
    return _NAME.fullmatch(name) is not None and ".." not in name


def digest_of(content: bytes) -> str:
    """The digest that a content is kept under."""
    return hashlib.sha256(content).hexdigest()


class Store:
    """A directory of named weights; several processes may use one at a time."""

    def __init__(self, directory: Path) -> None:
        self._weights = directory / "weights"
        self._names = directory / "names"
        for folder in (directory, self._weights, self._names):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, name: str, content: bytes) -> str:
        """Keeps `content` under `name`, at once and durably, and returns its digest.

        Raises:
            OSError: it can't be written; the old state stays.
        """
        digest = digest_of(content)
        try:
            os.utime(self._weights / digest)  # young again, so that no other process sweeps it meanwhile
        except FileNotFoundError:
            _write(self._weights / digest, content)
        _write(self._names / _file_name(name), digest.encode())
        return digest

    def names_version(self) -> int:
        """A number that changes when a name is put or moved, by whatever process."""
        return self._names.stat().st_mtime_ns

    def names(self) -> dict[str, str]:
        """Digest of every name."""
        found = {}
        for path in self._names.iterdir():
            digest = path.read_text() if not path.name.startswith(".") else ""
            if _DIGEST.fullmatch(digest):
                found[unquote(path.name)] = digest
        return found

    def read(self, digest: str) -> bytes:
        """The content of a digest.

        Raises:
            StoreError: it isn't there, or isn't what was put.
        """
        try:
            content = (self._weights / digest).read_bytes()
        except FileNotFoundError:
            raise StoreError(f"no weights with digest {digest}") from None
        if digest_of(content) != digest:
            raise StoreError(f"weights with digest {digest} are damaged")
        return content

    def sweep(self) -> None:
        """Deletes weights that no name points to, unless so young that another process may be about to name them."""
        old = time.time() - _UNNAMED_SECONDS
        named = set(self.names().values())
        for entry in os.scandir(self._weights):
            if _DIGEST.fullmatch(entry.name) and entry.name not in named and entry.stat().st_mtime < old:
                Path(entry.path).unlink(missing_ok=True)


def _file_name(name: str) -> str:
    return quote(name, safe="")


def _write(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
