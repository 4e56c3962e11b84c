"""Hands this machine's pip configuration to a build: a pip.conf as its secret, and what it names in reach.

It knows pip's configuration; not what is installed with it.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from deploy.image_check.tools import run

# In the secret, so that it can be looked for; always the same, since layers of earlier builds are used again.
MARKER = "layerwire image-check: pip settings"
_FILE_SCHEME = "file://"


@dataclass(frozen=True)
class PipSettings:
    """What a build is to know of pip: the secret, and files of this machine to mount."""

    file: Path
    mounts: tuple[Path, ...]

    def options(self) -> list[str]:
        """Options of `buildah build`."""
        volumes = [word for path in self.mounts for word in ("--volume", f"{path}:{path}:ro")]
        return ["--secret", f"id=pip,src={self.file}", *volumes]


@dataclass
class _Places:
    """Words of the settings turned into what a build can reach, and what that takes."""

    mounts: list[Path] = field(default_factory=list)
    servers: list[ThreadingHTTPServer] = field(default_factory=list)

    def reachable(self, word: str) -> str:
        """A folder as an address, since a mount would leave its empty mount point in the image; other words as is."""
        path = Path(word.removeprefix(_FILE_SCHEME))
        if not path.is_absolute() or not path.exists():
            return word
        if path.is_file():  # certificates, at a place that the base has too
            self.mounts.append(path)
            return word
        # An index's pages link to files beside it.
        root = path.parent if word.startswith(_FILE_SCHEME) else path
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/{path.relative_to(root)}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Says nothing."""


@contextmanager
def handed_over(scratch: Path) -> Iterator[PipSettings]:
    """This machine's settings, environment before files, as pip itself ranks them; in reach until the end."""
    values: dict[str, str] = {}
    for line in run([sys.executable, "-m", "pip", "config", "list"]).splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if key not in values or section == ":env:":
            values[key] = str(ast.literal_eval(value))
    places = _Places()
    lines = [f"{key} = {' '.join(map(places.reachable, value.split()))}" for key, value in values.items()]
    file = scratch / "pip.conf"
    file.write_text("\n".join([f"# {MARKER}", "[global]", *lines, ""]))
    try:
        yield PipSettings(file, tuple(places.mounts))
    finally:
        for server in places.servers:
            server.shutdown()
            server.server_close()
