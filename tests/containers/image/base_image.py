"""The base image where there is no registry to pull it from: Debian's own bookworm and Python.

It knows mmdebstrap and the layout of the official Python image; nothing of what is built on it.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tests.containers.image.podman import ToolError, podman, run

_SUITE, _MIRROR = "bookworm", "http://deb.debian.org/debian"
_PACKAGES = "ca-certificates,python3-distutils,python3.11-venv"
# /usr/local as in the official image: `python` and `pip` first on PATH, pip in a folder of its own.
_VENV = 'chroot "$1" python3.11 -m venv /usr/local'
_LEFTOVERS = 'rm -r "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/etc/apt/apt.conf.d/99mmdebstrap'
_RECIPE = (
    "--variant=minbase", '--aptopt=APT::Install-Recommends "false"', f"--include={_PACKAGES}",
    f"--customize-hook={_VENV}", f"--customize-hook={_LEFTOVERS}", "--skip=cleanup/apt", _SUITE,
)  # fmt: skip
_CHANGES = ("ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "ENV LANG=C.UTF-8", "CMD python3")


def base_name(dockerfile: Path) -> str:
    """The base that the Dockerfile asks for."""
    argument = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile.read_text(), re.MULTILINE)
    assert argument is not None, f"{dockerfile}: ARG PYTHON_IMAGE must have a default"
    return argument[1]


def make_base(name: str, scratch: Path) -> None:
    """Makes the base image, unless this storage has it from the same recipe, and gives it its name.

    Raises:
        ToolError: a tool failed.
    """
    digest = hashlib.sha256(repr((_RECIPE, _MIRROR, _CHANGES)).encode()).hexdigest()
    own_name = f"localhost/base:{digest[:12]}"
    try:
        podman("image", "exists", own_name)
    except ToolError:
        tree = scratch / "base.tar"
        run("mmdebstrap", *_RECIPE, tree, _MIRROR)
        podman("import", *(f"--change={change}" for change in _CHANGES), tree, own_name)
        tree.unlink()
    podman("tag", own_name, name)
