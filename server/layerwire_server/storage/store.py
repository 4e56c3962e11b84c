"""The store: weights as safetensors files and programs as protobuf files in one directory, and the names of both.

It knows files, bytes and names; neither torch nor gRPC, nor what a program says. Its methods block on the disk.

    DIRECTORY/weights/<sha256>.safetensors
    DIRECTORY/programs/<sha256>.pb
    DIRECTORY/names/weights.json             manifest.py says why it is one file
    DIRECTORY/names/programs.json
    DIRECTORY/names/.lock                    held while names change or files are swept
    DIRECTORY/uploads/<sha256>.part          uploads.py

Gateway and workers use it at the same time. A file comes before the name that needs it and goes after it: whoever names
a file holds the lock and looks that it is there; whoever sweeps holds the same lock.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from layerwire_server.storage import content, durable, names
from layerwire_server.storage.content import ContentFolder
from layerwire_server.storage.durable import Piece
from layerwire_server.storage.errors import MissingError, ReadOnlyError, StoreError
from layerwire_server.storage.manifest import Manifest
from layerwire_server.storage.names import NamedProgram, NamedTensor, ProgramVersion

UNNAMED_SECONDS = 3600.0
_NO_LIMIT = (1 << 63) - 1
_FOLDERS = ("weights", "programs", "names", "uploads")


class Store:
    """A directory of weights and programs.

    Args:
        directory: where it is; made if it isn't there.
        max_bytes: most bytes of all files together, parts of uploads included; None for as many as the disk takes.
        clock: seconds since 1970.

    Every method that changes something raises ReadOnlyError or StoreFullError where that is so; the old state stays.

    Raises:
        StoreError: there is no such directory and none can be made.
    """

    def __init__(self, directory: Path, max_bytes: int | None = None, clock: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self.weights_files = ContentFolder(directory / "weights", ".safetensors")
        self.program_files = ContentFolder(directory / "programs", ".pb")
        self.uploads_folder = directory / "uploads"
        self._names_folder = directory / "names"
        self._weights = Manifest(self._names_folder / "weights.json", names.tensor_from_json, names.tensor_to_json)
        self._programs = Manifest(self._names_folder / "programs.json", names.program_from_json, names.program_to_json)
        self._max_bytes = max_bytes
        self._clock = clock
        self.read_only = not _writable(directory)

    def names_version(self) -> int:
        """A number that changes with every change of names, by whatever process."""
        signatures = repr((self._weights.signature(), self._programs.signature()))
        return int.from_bytes(hashlib.blake2b(signatures.encode(), digest_size=8).digest())

    def weights(self) -> Mapping[str, NamedTensor]:
        """All names of weights, sorted, as they are now; what was returned never changes.

        Raises:
            DamagedError: the names can't be read.
        """
        return self._weights.read()

    def programs(self) -> Mapping[str, NamedProgram]:
        """All names of programs, likewise."""
        return self._programs.read()

    def find_weights(self, name: str) -> NamedTensor:
        """What a name of weights points to.

        Raises:
            MissingError: there is no such name.
        """
        return names.find(self.weights(), name, "weights")

    def find_program(self, name: str, version: int | None = None) -> tuple[int, ProgramVersion]:
        """Number and content of a program's version, of the default one if none is given.

        Raises:
            MissingError: there is no such name or version.
        """
        return names.find_version(names.find(self.programs(), name, "program"), name, version)

    def has_weights(self, digest: str) -> bool:
        """Whether a file of weights is there; if so, it is kept for another hour at least."""
        if not self.weights_files.has(digest):
            return False
        if self.read_only:
            return True
        try:
            with self._change():
                self.weights_files.refresh(digest)
        except MissingError:  # swept meanwhile
            return False
        except ReadOnlyError:  # since this process began
            return True
        return True

    def open_weights(self, digest: str, *, check: bool = True) -> BufferedReader:
        """A file of weights, from its start; it stays readable whatever becomes of its name.

        Raises:
            MissingError: it isn't there.
            DamagedError: its bytes aren't what was put. With `check`, they are summed once a process, in pieces.
        """
        return self.weights_files.open(digest, check=check)

    def read_program(self, digest: str) -> bytes:
        """The bytes of a program.

        Raises:
            MissingError: it isn't there.
            DamagedError: they aren't what was put.
        """
        with self.program_files.open(digest, check=True) as file:
            return file.read()

    def put_weights(self, pieces: Iterable[Piece]) -> str:
        """Keeps a safetensors file, which the caller has checked, and returns its digest.

        It has no name yet, and is swept after an hour if it gets none.
        """
        self.check_writable()
        with durable.write_errors():
            return self.weights_files.put(pieces, self.room_bytes())

    def name_weights(self, tensors: Mapping[str, NamedTensor]) -> None:
        """Lets names point to tensors, new names and old ones alike, all at once. Whether the keys exist isn't checked.

        Raises:
            InvalidNameError: a name breaks the rule.
            MissingError: a file isn't there.
        """
        for name in tensors:
            names.check_name(name)
        with self._change():
            self._check_there({tensor.digest for tensor in tensors.values()})
            self._replace_weights({**self.weights(), **tensors})

    def delete_weights(self, old_names: Iterable[str]) -> None:
        """Forgets names of weights, all or none.

        Raises:
            MissingError: one isn't there.
        """
        with self._change():
            there = dict(self.weights())
            for name in set(old_names):
                names.find(there, name, "weights")
                del there[name]
            self._replace_weights(there)

    def put_program(
        self,
        name: str,
        program: bytes,
        weights: Iterable[str],
        *,
        version: int | None = None,
        keep_default_version: bool = False,
        pinned: bool = False,
    ) -> tuple[int, ProgramVersion]:
        """Keeps a program as a version of a name, one more than the highest if none is given; returns that version.

        Args:
            name: the program's name.
            program: its bytes, which the caller has checked.
            weights: digests of the files of weights that it needs; they are kept as long as it is.
            version: its number.
            keep_default_version: whether calls that give no version stay with what they get now.
            pinned: whether its weights stay on devices when room is short.

        Raises:
            InvalidNameError: name, version or a digest breaks the rule.
            ConflictError: the version is there already.
            MissingError: a file of weights isn't there.
        """
        names.check_name(name)
        digest = hashlib.sha256(program).hexdigest()
        new = ProgramVersion(digest, self._clock(), pinned, frozenset(weights))
        with self._change():
            there = dict(self.programs())
            keep = keep_default_version
            number, there[name] = names.with_version(there.get(name), name, version, new, keep_default=keep)
            self._check_there(new.weights)
            self.program_files.put([program], self.room_bytes())
            self._replace_programs(there)
        return number, new

    def set_default_version(self, name: str, version: int) -> None:
        """Moves a program's name to another of its versions.

        Raises:
            MissingError: there is no such name or version.
        """
        with self._change():
            there = dict(self.programs())
            there[name] = names.with_default(names.find(there, name, "program"), name, version)
            self._replace_programs(there)

    def delete_program(self, name: str, version: int | None = None) -> None:
        """Forgets one version of a program, or all.

        Raises:
            MissingError: there is no such name or version.
            ConflictError: the version is the default one while there are others.
        """
        with self._change():
            there = dict(self.programs())
            program = names.find(there, name, "program")
            rest = None if version is None else names.without_version(program, name, version)
            del there[name]
            if rest is not None:
                there[name] = rest
            self._replace_programs(there)

    def sweep(self, older_than_seconds: float = UNNAMED_SECONDS) -> int:
        """Deletes files that no name needs, and parts of uploads, untouched for so long; returns the bytes freed.

        Raises:
            DamagedError: the names can't be read; then nothing is deleted.
        """
        before_seconds = self._clock() - older_than_seconds
        with self._change():
            freed_bytes = self.weights_files.sweep(self._needed_weights(), before_seconds)
            freed_bytes += self.program_files.sweep(names.program_digests(self.programs().values()), before_seconds)
            freed_bytes += content.sweep_unlocked(self._names_folder, durable.TEMPORARY_PREFIX, before_seconds)
            return freed_bytes + content.sweep_unlocked(self.uploads_folder, "", before_seconds)

    def used_bytes(self) -> int:
        """Bytes of all files."""
        return sum(content.total_bytes(self.directory / folder) for folder in _FOLDERS)

    def room_bytes(self) -> int:
        """Bytes that may still come under `max_bytes`."""
        return _NO_LIMIT if self._max_bytes is None else max(0, self._max_bytes - self.used_bytes())

    def check_writable(self) -> None:
        """Raises ReadOnlyError if the directory can't be written."""
        if self.read_only:
            raise ReadOnlyError("the store can't be written: it is mounted read-only or belongs to another user")

    @contextmanager
    def _change(self) -> Iterator[None]:
        self.check_writable()
        with durable.write_errors(), durable.lock(self._names_folder / ".lock"):
            yield

    def _check_there(self, digests: Iterable[str]) -> None:
        for digest in digests:
            if not self.weights_files.has(digest):
                raise MissingError(f"the store has no file with digest {digest}")

    def _needed_weights(self) -> set[str]:
        return names.weights_digests(self.weights().values(), self.programs().values())

    def _replace_weights(self, tensors: Mapping[str, NamedTensor]) -> None:
        needed = names.weights_digests(tensors.values(), self.programs().values())
        _release(self.weights_files, self._needed_weights() - needed)
        self._weights.replace(tensors, self.room_bytes())

    def _replace_programs(self, programs: Mapping[str, NamedProgram]) -> None:
        needed = names.weights_digests(self.weights().values(), programs.values())
        _release(self.weights_files, self._needed_weights() - needed)
        old_digests = names.program_digests(self.programs().values()) - names.program_digests(programs.values())
        _release(self.program_files, old_digests)
        self._programs.replace(programs, self.room_bytes())


def _release(files: ContentFolder, digests: Iterable[str]) -> None:
    # A call that began on them may still have to load them, so their hour begins now.
    for digest in digests:
        with suppress(MissingError):
            files.refresh(digest)


def _writable(directory: Path) -> bool:
    try:
        for folder in (directory, *(directory / name for name in _FOLDERS)):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if not directory.is_dir() or error.errno not in durable.READ_ONLY_ERRNOS:
            raise StoreError(f"the store's directory {directory} can't be made: {error.strerror}") from error
        return False
    return all(os.access(directory / name, os.W_OK | os.X_OK) for name in _FOLDERS)
