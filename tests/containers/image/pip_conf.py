"""This machine's pip configuration for a build: a pip.conf as its secret, and the folders that it names.

It knows pip's configuration; not what is installed with it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from tests.containers.image.podman import run

# In the secret, so that it can be looked for; always the same, since layers of earlier builds are used again.
MARKER = "layerwire image-check: pip settings"
_FILE_SCHEME = "file://"
_MOUNTS = "/mnt"  # empty in Debian; what is mounted over it takes the mount points below it away with it


def options(scratch: Path) -> list[str]:
    """Options of `podman build`: this machine's settings, environment before files, as pip itself ranks them."""
    values: dict[str, str] = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if key not in values or section == ":env:":
            values[key] = str(ast.literal_eval(value))
    folders: dict[Path, str] = {}
    lines = [f"{key} = {' '.join(_inside(word, folders) for word in value.split())}" for key, value in values.items()]
    secret, mounts = scratch / "pip.conf", scratch / "mnt"
    secret.write_text("\n".join([f"# {MARKER}", "[global]", *lines, ""]))
    for place in folders.values():
        (mounts / Path(place).name).mkdir(parents=True)
    pairs = [(mounts, _MOUNTS), *folders.items()] if folders else []
    return ["--secret", f"id=pip,src={secret}", *(f"--volume={folder}:{place}:ro" for folder, place in pairs)]


def _inside(word: str, folders: dict[Path, str]) -> str:
    """A word of the settings as a build can reach it: a place of this machine by the folder that it is in.

    The folder goes along whole, for an index's pages link to files beside it.
    """
    path = Path(word.removeprefix(_FILE_SCHEME))
    if not path.is_absolute() or not path.exists():
        return word
    place = folders.setdefault(path.parent, f"{_MOUNTS}/{len(folders)}")
    return word.replace(str(path.parent), place, 1)
