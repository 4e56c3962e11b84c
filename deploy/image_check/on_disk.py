"""What must hold of an image before it runs: its configuration, its files, its packages.

It knows files and Docker's configuration; it starts nothing.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from deploy.image_check.images import Image
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_BUILD_TOOLS = {"as", "c++", "cargo", "cc", "clang", "cmake", "g++", "gcc", "git", "ld", "make", "ninja", "pip", "uv"}
_BUILD_PACKAGES = {"hatchling", "pip", "wheel"}
_EMPTY = ("root/.cache", "root/.config", "run/secrets", "tmp", "var/cache/apt/archives", "var/lib/apt/lists")
_OPT = {"layerwire"}  # else a mount of the build, or what it forgot
_CHUNK_BYTES = 1 << 24
_LABELS = {"title", "description", "licenses", "version"}
_EXTRAS = ("server", "bench")


class BrokenError(Exception):
    """A check didn't hold; the text says what was seen instead."""


@dataclass(frozen=True)
class Subject:
    """An image, its files as a container sees them, and what it was made from."""

    image: Image
    files: Path
    constraints: Path
    marker: str

    @property
    def packages(self) -> Path:
        """The folder of its Python packages."""
        return next(self.files.glob("opt/layerwire/lib/python3.*/site-packages"))


def need(holds: object, seen: str) -> None:
    """Raises BrokenError unless it holds."""
    if not holds:
        raise BrokenError(seen)


def configuration(subject: Subject) -> str:
    """The words of the image that engines and orchestrators read."""
    config = subject.image.config
    user = config["User"].split(":")
    need(all(part.isdigit() and int(part) > 0 for part in user), f"User must be numeric and not root, got {user}")
    need(config["Cmd"] == ["serve"], f"Cmd: {config['Cmd']}")
    need(config["Entrypoint"][-1] == "layerwire", f"Entrypoint: {config['Entrypoint']}")
    need(set(config["ExposedPorts"]) == {"50051/tcp", "9464/tcp"}, f"ExposedPorts: {set(config['ExposedPorts'])}")
    need(set(config["Volumes"]) == {"/var/lib/layerwire"}, f"Volumes: {set(config['Volumes'])}")
    need("layerwire health" in " ".join(config["Healthcheck"]["Test"]), f"Healthcheck: {config['Healthcheck']}")
    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items() if value}
    need(set(labels) >= _LABELS, f"Labels: {sorted(labels)}")
    installed = next(iter(distributions(name="layerwire", path=[str(subject.packages)]))).version
    need(labels["version"] == installed, f"Label version {labels['version']}, package {installed}")
    return f"user {config['User']}, {len(config['Labels'])} labels, version {installed}"


def no_build_tools(subject: Subject) -> str:
    """No compiler, no installer, in no folder of PATH and not as a package."""
    path = next(word for word in subject.image.config["Env"] if word.startswith("PATH=")).removeprefix("PATH=")
    folders = [subject.files / folder.lstrip("/") for folder in path.split(":")]
    names = {entry.name.partition("-")[0].rstrip("0123456789.") for folder in folders if folder.is_dir()
             for entry in folder.iterdir()}  # fmt: skip
    need(not names & _BUILD_TOOLS, f"on PATH: {sorted(names & _BUILD_TOOLS)}")
    places = [subject.packages, *subject.files.glob("usr/local/lib/python3.*/site-packages")]
    found = {_name(each) for each in distributions(path=[str(place) for place in places])} & _BUILD_PACKAGES
    need(not found, f"installed: {sorted(found)}")
    return f"none of {', '.join(sorted(_BUILD_TOOLS))} among {len(names)} commands"


def no_leftovers(subject: Subject) -> str:
    """No cache, no mount point, no folder of the build."""
    left = [place for place in _EMPTY if any((subject.files / place).glob("*"))]
    left += [f"opt/{entry.name}" for entry in (subject.files / "opt").iterdir() if entry.name not in _OPT]
    left += ["build"] if (subject.files / "build").exists() else []
    need(not left, f"left: {left}")
    return f"{', '.join(_EMPTY)} empty or absent"


def no_secret(subject: Subject) -> str:
    """Nothing of the pip.conf that the build was given: in no file, no variable, no line of the history."""
    marker = subject.marker.encode()
    need(subject.marker not in subject.image.history, "the configuration or the history has it")
    count = 0
    for path in _regular(subject.files):
        count += 1
        need(not _contains(path, marker), f"{path.relative_to(subject.files)} has it")
    return f"read {count:,} files and the history"


def pinned(subject: Subject) -> str:
    """Every package has the version of the constraints file."""
    pins = dict(line.split("==") for line in subject.constraints.read_text().split() if "==" in line)
    versions: dict[str, Version] = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    found = {_name(each): Version(each.version) for each in distributions(path=[str(subject.packages)])}
    found.pop("layerwire")
    # torch's wheel for the CPU says 2.13.0+cpu
    wrong = {name: str(version) for name, version in found.items() if versions.get(name) != Version(version.public)}
    need(not wrong, f"not as in {subject.constraints.name}: {wrong}")
    return f"{len(found)} packages"


def complete(subject: Subject) -> str:
    """Every package has what it asks for, layerwire with its server and its load tester."""
    found = {_name(each): each for each in distributions(path=[str(subject.packages)])}
    asked = list(_requirements(found["layerwire"], _EXTRAS))
    asked += [need for each in found.values() for need in _requirements(each, ("",))]
    wrong = [
        str(requirement)
        for requirement in asked
        if (name := canonicalize_name(requirement.name)) not in found
        or not requirement.specifier.contains(found[name].version, prereleases=True)
    ]
    need(not wrong, f"missing: {wrong}")
    return f"{len(asked)} requirements met"


def bytecode(subject: Subject) -> str:
    """Every module is compiled, and its source hasn't moved on since: a start compiles nothing."""
    stale, count = [], 0
    for source in subject.packages.glob("layerwire*/**/*.py"):
        count += 1
        made = list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-3*.pyc"))
        state = source.stat()
        # PEP 552: magic, flags, the source's time and size
        if not made or struct.unpack("<4xIII", made[0].read_bytes()[:16]) != (0, int(state.st_mtime), state.st_size):
            stale.append(source.name)
    need(count and not stale, f"not compiled or stale: {stale[:5]} of {len(stale)}")
    return f"{count} modules of layerwire"


def owned_by_root(subject: Subject) -> str:
    """The server can't write what it runs; the store's folder alone is its own."""
    writable = [path for path in _regular(subject.files / "opt") if path.stat().st_uid != 0
                or path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)]  # fmt: skip
    need(not writable, f"writable: {[str(path) for path in writable[:5]]}")
    user = int(subject.image.config["User"].partition(":")[0])
    store = subject.files / "var/lib/layerwire"
    need(store.stat().st_uid == user, f"the store is {store.stat().st_uid}'s")
    return f"/opt root's, the store {user}'s"


def _name(distribution: Distribution) -> str:
    return canonicalize_name(distribution.metadata["Name"])


def _requirements(distribution: Distribution, extras: tuple[str, ...]) -> Iterator[Requirement]:
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement


def _regular(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def _contains(path: Path, marker: bytes) -> bool:
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(_CHUNK_BYTES):
            if marker in tail + chunk:
                return True
            tail = chunk[-len(marker) :]
    return False


CHECKS: dict[str, Callable[[Subject], str]] = {
    "configuration is complete": configuration,
    "no build tools": no_build_tools,
    "no caches, no mount points": no_leftovers,
    "nothing of the build's pip.conf": no_secret,
    "versions are the pinned ones": pinned,
    "requirements are met": complete,
    "bytecode is there and fresh": bytecode,
    "code is root's, the store the user's": owned_by_root,
}
