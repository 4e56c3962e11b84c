"""Builds the image's targets, and reads what came out: configuration and layers.

It knows podman's words for them; not what should be in an image.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.containers.image.podman import podman

ROOT = Path(__file__).parents[3]
DOCKERFILE = Path("deploy/Dockerfile")


@dataclass(frozen=True)
class Layer:
    """A layer: the digest and the bytes of its files before compression."""

    digest: str
    size_bytes: int


@dataclass(frozen=True)
class Image:
    """An image in the storage; `config` is Docker's, `history` all that it tells of its making."""

    name: str
    config: Mapping[str, Any]
    health_check: Sequence[str]
    layers: tuple[Layer, ...]
    history: str


def build(context: Path, target: str, pip_options: Sequence[str], *arguments: str, tag: str = "") -> Image:
    """Builds a target from a folder that has the project in it.

    Raises:
        ToolError: the build failed.
    """
    name = f"localhost/layerwire:{tag or target}"
    build_arguments = [f"--build-arg={argument}" for argument in arguments]
    # HEALTHCHECK is Docker's own: images in the OCI format have none. A chroot needs no network of containers.
    podman("build", "--isolation=chroot", "--pull=never", "--format=docker", "--layers",
           "--ignorefile", context / ".dockerignore", "--file", context / DOCKERFILE, "--target", target,
           *pip_options, *build_arguments, "--tag", name, context)  # fmt: skip
    return _read(name)


def _read(name: str) -> Image:
    """What an image says of itself, and how large its layers are."""
    text = podman("image", "inspect", name)
    (image,) = json.loads(text)
    steps = json.loads(podman("history", "--format=json", name))
    sizes = [step["size"] for step in reversed(steps) if step["size"]]
    layers = [Layer(digest, size) for digest, size in zip(image["RootFS"]["Layers"], sizes, strict=True)]
    return Image(name, image["Config"], image["Healthcheck"]["Test"], tuple(layers), text)


def copy_context(to: Path) -> None:
    """Copies what a build reads, for a change that isn't to touch the project's own files."""
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        path = ROOT / line.removeprefix("!")
        if not line.startswith("!"):
            continue
        if path.is_dir():
            shutil.copytree(path, to / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(path, to / path.name)
    shutil.copy2(ROOT / ".dockerignore", to)
    (to / DOCKERFILE).parent.mkdir()
    shutil.copy2(ROOT / DOCKERFILE, to / DOCKERFILE)
