"""A file that is there while a worker does what may kill it; left behind, it tells of a death.

It knows files and their locks; nothing of what is done meanwhile.

Its worker holds a lock of it, which ends with the process, by whatever death. So several servers can share a store:
what another's worker is doing just now is no death.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from layerwire_server.storage import durable

_MOST_BYTES = 1 << 16


class DeathMark:
    """The mark of one worker for one kind of danger.

    Args:
        folder: where it stands; it may be missing until `put`.
        name: the worker's, the same in its next life.
        suffix: what says the kind of danger.
    """

    def __init__(self, folder: Path, name: str, suffix: str) -> None:
        self._folder = folder
        self._name = name
        self._suffix = suffix
        self._path = folder / f"{name}.{secrets.token_hex(4)}{suffix}"
        self._descriptor: int | None = None

    def put(self, content: bytes = b"") -> None:
        """From now on until `remove`, the process's death will be known by this content.

        Raises:
            OSError: it can't be written.
        """
        self.remove()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=durable.TEMPORARY_PREFIX)
        temporary = Path(name)
        try:
            _lock(self._descriptor)  # before it has its name, so that nobody finds it without
            durable.write_all(self._descriptor, content[:_MOST_BYTES])
            temporary.rename(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """The worker lived through it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(descriptor)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def take_dead(self) -> list[bytes]:
        """The contents of marks that workers of this name left by their deaths; they are removed."""
        contents = []
        for path in [self._folder / (self._name + self._suffix), *self._folder.glob(f"{self._name}.*{self._suffix}")]:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                if _lock(descriptor) and durable.is_at(descriptor, path):
                    contents.append(os.read(descriptor, _MOST_BYTES))
                    path.unlink()
            finally:
                os.close(descriptor)
        return contents


def _lock(descriptor: int) -> bool:
    """Whether nobody else has it; where the file system has no locks, nobody is known to."""
    try:
        return durable.lock_now(descriptor)
    except OSError:
        return True
