"""What must hold of the image before it runs: its configuration, its files, its packages."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.containers.image.images import ROOT, Image
from tests.containers.image.pip_conf import MARKER
from tests.containers.image.podman import MARKS

pytestmark = MARKS

BUILD_TOOLS = {"as", "c++", "cargo", "cc", "clang", "cmake", "g++", "gcc", "git", "ld", "make", "ninja", "pip", "uv"}
BUILD_PACKAGES = {"hatchling", "pip", "wheel"}
EMPTY = ("root/.cache", "root/.config", "run/secrets", "tmp", "mnt", "var/cache/apt/archives", "var/lib/apt/lists")
OPT = {"layerwire"}  # else a mount of the build, or what it forgot
CHUNK_BYTES = 1 << 24
LABELS = {"title", "description", "licenses", "version"}
EXTRAS = ("server", "bench")


@pytest.fixture(scope="module")
def packages(files: Path) -> Path:
    """The folder of its Python packages."""
    return next(files.glob("opt/layerwire/lib/python3.*/site-packages"))


@pytest.fixture(scope="module")
def by_name(packages: Path) -> dict[str, Distribution]:
    """Its Python packages, by canonical name."""
    return {canonical(each): each for each in distributions(path=[str(packages)])}


def canonical(distribution: Distribution) -> str:
    return canonicalize_name(distribution.metadata["Name"])


def requirements(distribution: Distribution, extras: tuple[str, ...]) -> Iterator[Requirement]:
    for text in distribution.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement


def regular_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_symlink() and path.is_file())


def contains(path: Path, marker: bytes) -> bool:
    with path.open("rb") as file:
        tail = b""
        while chunk := file.read(CHUNK_BYTES):
            if marker in tail + chunk:
                return True
            tail = chunk[-len(marker) :]
    return False


def test_configuration(cpu: Image, by_name):
    """The words of the image that engines and orchestrators read."""
    config = cpu.config
    assert all(part.isdigit() and int(part) > 0 for part in config["User"].split(":")), "numeric, and not root"
    assert config["Cmd"] == ["serve"]
    assert config["Entrypoint"][-1] == "layerwire"
    assert set(config["ExposedPorts"]) == {"50051/tcp", "9464/tcp"}
    assert set(config["Volumes"]) == {"/var/lib/layerwire"}
    assert "layerwire health" in " ".join(cpu.health_check)
    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items() if value}
    assert set(labels) >= LABELS
    assert labels["version"] == by_name["layerwire"].version


def test_no_build_tools(cpu: Image, files, packages):
    """No compiler, no installer, in no folder of PATH and not as a package."""
    path = next(word for word in cpu.config["Env"] if word.startswith("PATH=")).removeprefix("PATH=")
    folders = [files / folder.lstrip("/") for folder in path.split(":")]
    names = {entry.name.partition("-")[0].rstrip("0123456789.") for folder in folders if folder.is_dir()
             for entry in folder.iterdir()}  # fmt: skip
    assert "python" in names
    assert names & BUILD_TOOLS == set()
    places = [packages, *files.glob("usr/local/lib/python3.*/site-packages")]
    assert {canonical(each) for each in distributions(path=list(map(str, places)))} & BUILD_PACKAGES == set()


def test_no_caches_no_mount_points(files):
    """No folder of the build either."""
    assert [place for place in EMPTY if any((files / place).glob("*"))] == []
    assert {entry.name for entry in (files / "opt").iterdir()} == OPT
    assert not (files / "build").exists()


def test_nothing_of_the_pip_conf(cpu: Image, files):
    """In no file, no variable, no line of the history."""
    assert MARKER not in cpu.history
    assert [path for path in regular_files(files) if contains(path, MARKER.encode())] == []


def test_versions_are_pinned(by_name):
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    versions = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    # torch's wheel for the CPU says 2.13.0+cpu
    others = {name: Version(Version(each.version).public) for name, each in by_name.items() if name != "layerwire"}
    assert others
    assert {name: version for name, version in others.items() if versions.get(name) != version} == {}


def test_requirements_are_met(by_name):
    """Every package has what it asks for, layerwire with its server and its load tester."""
    needs = list(requirements(by_name["layerwire"], EXTRAS))
    needs += [need for each in by_name.values() for need in requirements(each, ("",))]
    unmet = [
        str(need)
        for need in needs
        if (name := canonicalize_name(need.name)) not in by_name
        or not need.specifier.contains(by_name[name].version, prereleases=True)
    ]
    assert unmet == []


def test_bytecode_is_fresh(packages):
    """Every module is compiled, and its source hasn't moved on since: a start compiles nothing."""
    stale, count = [], 0
    for source in packages.glob("layerwire*/**/*.py"):
        count += 1
        bytecode = list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-3*.pyc"))
        state = source.stat()
        # PEP 552: magic, flags, the source's time and size
        header = (0, int(state.st_mtime), state.st_size)
        if not bytecode or struct.unpack("<4xIII", bytecode[0].read_bytes()[:16]) != header:
            stale.append(source.name)
    assert count
    assert stale == []


def test_code_is_roots_and_the_store_the_users(cpu: Image, files):
    """The server can't write what it runs; the store's folder alone is its own."""
    writable = [path for path in regular_files(files / "opt") if path.stat().st_uid != 0
                or path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)]  # fmt: skip
    assert writable == []
    user = int(cpu.config["User"].partition(":")[0])
    assert (files / "var/lib/layerwire").stat().st_uid == user
