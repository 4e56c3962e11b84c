"""Builds the image's targets with buildah, and tells what came out: configuration, layers, files.

It knows buildah and its storage; not what should be in an image.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.image_check.pip_settings import PipSettings
from deploy.image_check.tools import Buildah

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
    layers: tuple[Layer, ...]
    history: str

    @property
    def size_bytes(self) -> int:
        """The bytes of all its files, before compression."""
        return sum(layer.size_bytes for layer in self.layers)


def build(
    buildah: Buildah, context: Path, target: str, pip: PipSettings, log: Path,
    arguments: Mapping[str, str] | None = None, tag: str = "",
) -> Image:  # fmt: skip
    """Builds a target from a folder that has the project in it.

    Raises:
        ToolError: the build failed.
    """
    name = f"localhost/layerwire:{tag or target}"
    given = [word for key, value in (arguments or {}).items() for word in ("--build-arg", f"{key}={value}")]
    # HEALTHCHECK is Docker's own: images in the OCI format have none.
    buildah.run("build", "--isolation", "chroot", "--pull-never", "--format", "docker", "--layers",
                "--ignorefile", context / ".dockerignore", "--file", context / DOCKERFILE, "--target", target,
                *pip.options(), *given, "--tag", name, context, log=log)  # fmt: skip
    return read(buildah, name)


def read(buildah: Buildah, name: str) -> Image:
    """What an image says of itself, and how large its layers are."""
    told = json.loads(buildah.run("inspect", "--type", "image", name))
    docker = told["Docker"]
    sizes = {layer["diff-digest"]: layer["diff-size"] for layer in _stored_layers(buildah) if "diff-digest" in layer}
    layers = (Layer(digest, sizes[digest]) for digest in docker["rootfs"]["diff_ids"])
    return Image(name, docker["config"], tuple(layers), json.dumps(told))


def _stored_layers(buildah: Buildah) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = json.loads((buildah.directory / "overlay-layers" / "layers.json").read_text())
    return layers


@contextmanager
def mounted(buildah: Buildah, image: Image) -> Iterator[Path]:
    """The image's files, as a container of it sees them."""
    container = buildah.run("from", "--pull-never", image.name)
    try:
        yield Path(buildah.run("mount", container))
    finally:
        buildah.run("rm", container)


def copy_context(root: Path, to: Path) -> None:
    """Copies what a build reads, for a change that isn't to touch the project's own files."""
    for line in (root / ".dockerignore").read_text().splitlines():
        path = root / line.removeprefix("!")
        if not line.startswith("!"):
            continue
        if path.is_dir():
            shutil.copytree(path, to / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(path, to / path.name)
    shutil.copy2(root / ".dockerignore", to)
    (to / DOCKERFILE).parent.mkdir()
    shutil.copy2(root / DOCKERFILE, to / DOCKERFILE)
