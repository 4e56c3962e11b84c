"""Runs the tools: buildah on a storage of its own, runc, ip, debootstrap.

It knows how to run a command and what to say when one fails; not what images or containers are.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_LAST_CHARACTERS = 3000


class ToolError(Exception):
    """A command failed; the text has the command and the end of what it said."""


def run(command: Sequence[str | Path], *, log: Path | None = None, environment: Mapping[str, str] | None = None) -> str:
    """Standard output of a command; with `log`, all it says goes there instead.

    Raises:
        ToolError: its exit status is not 0.
    """
    words = [shutil.which(str(command[0])) or str(command[0]), *map(str, command[1:])]
    if log is None:
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
        told = done.stderr + done.stdout
    else:
        with log.open("w") as file:
            done = subprocess.run(words, stdout=file, stderr=file, text=True, check=False, env=environment)
        told = log.read_text()
    if done.returncode != 0:
        raise ToolError(f"{' '.join(words)}: exit status {done.returncode}\n{told[-_LAST_CHARACTERS:]}")
    return done.stdout or ""


class Buildah:
    """buildah with images and layers below one directory, apart from the machine's own."""

    def __init__(self, directory: Path) -> None:
        storage: list[str | Path] = ["--root", directory / "images", "--runroot", directory / "run"]
        self._options = [*storage, "--storage-driver", "overlay"]
        self.directory = directory / "images"

    def run(self, *words: str | Path, log: Path | None = None) -> str:
        """Standard output of `buildah words...`.

        Raises:
            ToolError: its exit status is not 0.
        """
        return run(["buildah", *self._options, *words], log=log).strip()

    def has(self, image: str) -> bool:
        """Whether there is such an image."""
        try:
            self.run("inspect", "--type", "image", image)
        except ToolError:
            return False
        return True
