"""Makes the base image where there is no registry to pull it from: Debian's own bookworm and Python.

It knows debootstrap and the layout of the official Python image; nothing of what is built on it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from deploy.image_check.tools import Buildah, run

_SUITE, _MIRROR = "bookworm", "http://deb.debian.org/debian"
_PACKAGES = "ca-certificates,python3-distutils,python3.11-venv"
# /usr/local as in the official image: `python` and `pip` first on PATH, pip in a folder of its own.
_VENV = ("python3.11", "-m", "venv", "/usr/local")
_SETTINGS = ("--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "--env", "LANG=C.UTF-8")
_LEFTOVERS = ("var/lib/apt/lists", "var/cache/apt/archives")


def name_in(dockerfile: Path) -> str:
    """The base that the Dockerfile asks for.

    Raises:
        ValueError: it has no ARG PYTHON_IMAGE with a default.
    """
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{dockerfile}: ARG PYTHON_IMAGE must have a default, found none")
    return found[1]


def make(buildah: Buildah, name: str, scratch: Path) -> None:
    """Makes the base image, unless this storage has it from the same recipe, and gives it its name.

    Raises:
        ToolError: a tool failed.
    """
    recipe = repr((_SUITE, _MIRROR, _PACKAGES, _VENV, _SETTINGS, _LEFTOVERS)).encode()
    kept = f"localhost/base:{hashlib.sha256(recipe).hexdigest()[:12]}"
    if not buildah.has(kept):
        tree = scratch / "base"
        run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, tree, _MIRROR],
            log=scratch / "debootstrap.log")  # fmt: skip
        run(["chroot", tree, *_VENV])
        for leftover in _LEFTOVERS:
            shutil.rmtree(tree / leftover)
            (tree / leftover).mkdir()
        container = buildah.run("from", "scratch")
        buildah.run("add", "--quiet", container, tree, "/")
        buildah.run("config", *_SETTINGS, "--cmd", "python3", container)
        buildah.run("commit", "--quiet", container, kept)
        buildah.run("rm", container)
        shutil.rmtree(tree)
    buildah.run("tag", kept, name)
