"""Names of weights and programs: what a name may be, what it points to, and how that changes.

It knows values alone, no files; every change takes the entries there are and returns new ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from layerwire_server.storage.content import check_digest
from layerwire_server.storage.errors import ConflictError, InvalidNameError, MissingError

Entry = TypeVar("Entry")

MAX_VERSION = (1 << 63) - 1
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._/-]{0,199}")
_RULE = "1 to 200 letters, digits, '.', '_', '-' or '/', not starting with '.' or '/', without '..'"


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """What a name of weights points to: a tensor of a safetensors file, pinned on devices or not."""

    digest: str
    key: str
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class ProgramVersion:
    """One version of a program: its file, and the weights' files that it needs."""

    digest: str
    put_seconds: float
    pinned: bool = False
    weights: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NamedProgram:
    """What a name of a program points to: versions, ascending, one of them the default."""

    default_version: int
    versions: Mapping[int, ProgramVersion]


def check_name(name: str) -> str:
    """The name itself.

    Raises:
        InvalidNameError: it breaks the rule of store.proto.
    """
    if _NAME.fullmatch(name) is None or ".." in name:
        raise InvalidNameError(f"name must be {_RULE}, got {name[:200]!r}")
    return name


def tensor_from_json(entry: Any) -> NamedTensor:
    """A name's entry of names/weights.json; raises ValueError, TypeError or LookupError if it is none."""
    key, pinned = entry["key"], entry.get("pinned", False)
    if not isinstance(key, str) or not isinstance(pinned, bool):
        raise TypeError("key must be a string and pinned true or false")
    return NamedTensor(check_digest(entry["digest"]), key, pinned)


def tensor_to_json(tensor: NamedTensor) -> Any:
    """The reverse."""
    return {"digest": tensor.digest, "key": tensor.key, "pinned": tensor.pinned}


def program_from_json(entry: Any) -> NamedProgram:
    """A name's entry of names/programs.json; raises ValueError, TypeError or LookupError if it is none."""
    versions = {
        check_version(int(number)): _version_from_json(version) for number, version in entry["versions"].items()
    }
    default_version = entry["default_version"]
    versions[default_version]  # the default one must be there
    return NamedProgram(default_version, dict(sorted(versions.items())))


def _version_from_json(entry: Any) -> ProgramVersion:
    pinned = entry.get("pinned", False)
    if not isinstance(pinned, bool):
        raise TypeError("pinned must be true or false")
    weights = frozenset(check_digest(digest) for digest in entry.get("weights", ()))
    return ProgramVersion(check_digest(entry["digest"]), float(entry.get("put_seconds", 0.0)), pinned, weights)


def program_to_json(program: NamedProgram) -> Any:
    """The reverse."""
    versions = {
        str(number): {
            "digest": version.digest,
            "put_seconds": version.put_seconds,
            "pinned": version.pinned,
            "weights": sorted(version.weights),
        }
        for number, version in program.versions.items()
    }
    return {"default_version": program.default_version, "versions": versions}


def check_version(version: int) -> int:
    """The version itself.

    Raises:
        InvalidNameError: it isn't 1 to 9223372036854775807.
    """
    if not 1 <= version <= MAX_VERSION:
        raise InvalidNameError(f"version must be 1 to {MAX_VERSION}, got {version}")
    return version


def find(entries: Mapping[str, Entry], name: str, kind: str) -> Entry:
    """What a name points to.

    Raises:
        MissingError: there is no such name.
    """
    try:
        return entries[check_name(name)]
    except KeyError:
        raise MissingError(f"the store has no {kind} named {name!r}") from None


def find_version(program: NamedProgram, name: str, version: int | None) -> tuple[int, ProgramVersion]:
    """Number and content of a version, of the default one if none is given.

    Raises:
        MissingError: the program has no such version.
    """
    number = program.default_version if version is None else check_version(version)
    version_entry = program.versions.get(number)
    if version_entry is None:
        raise MissingError(f"program {name!r} has no version {number}")
    return number, version_entry


def with_version(
    program: NamedProgram | None, name: str, number: int | None, version: ProgramVersion, *, keep_default: bool
) -> tuple[int, NamedProgram]:
    """A program with one more version, and that version's number: one more than the highest unless given.

    Raises:
        ConflictError: it has that version already.
    """
    versions = dict(program.versions) if program else {}
    number = check_version(max(versions, default=0) + 1 if number is None else number)
    if number in versions:
        raise ConflictError(f"program {name!r} has a version {number} already")
    versions[number] = version
    default = program.default_version if program and keep_default else number
    return number, NamedProgram(default, dict(sorted(versions.items())))


def with_default(program: NamedProgram, name: str, number: int) -> NamedProgram:
    """A program with another default version.

    Raises:
        MissingError: it has no such version.
    """
    return replace(program, default_version=find_version(program, name, number)[0])


def without_version(program: NamedProgram, name: str, number: int) -> NamedProgram | None:
    """A program with one version less; None if that was the last.

    Raises:
        MissingError: it has no such version.
        ConflictError: it is the default one while there are others.
    """
    find_version(program, name, number)
    rest = {other: version for other, version in program.versions.items() if other != number}
    if rest and number == program.default_version:
        raise ConflictError(f"program {name!r}: version {number} is the default one; move the default first")
    return replace(program, versions=rest) if rest else None


def weights_digests(tensors: Iterable[NamedTensor], programs: Iterable[NamedProgram]) -> set[str]:
    """Digests of all files of weights that names or programs stand on."""
    digests = {tensor.digest for tensor in tensors}
    return digests.union(*(version.weights for program in programs for version in program.versions.values()))


def program_digests(programs: Iterable[NamedProgram]) -> set[str]:
    """Digests of all files of programs that names point to."""
    return {version.digest for program in programs for version in program.versions.values()}


def page(entries: Mapping[str, Entry], prefix: str, after: str, limit: int) -> tuple[list[tuple[str, Entry]], str]:
    """At most `limit` names that start with `prefix` and come after `after`, and the name to go on after.

    The latter is "" on the last page. Names that appear or go between two pages do no harm to the others.
    """
    rest = [(name, entry) for name, entry in entries.items() if name.startswith(prefix) and name > after]
    return rest[:limit], rest[limit - 1][0] if len(rest) > limit else ""
