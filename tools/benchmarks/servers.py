"""The servers that are compared, each a process of its own on free ports."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
BARE = ("tools.benchmarks.bare",)
LAYERWIRE = (
    "layerwire.cli", "serve", "--device", "cpu", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
    "--log-level", "warning",
)  # fmt: skip


class Tree(NamedTuple):
    """A checkout, and the Python that has it installed, or finds it by PYTHONPATH."""

    root: Path
    python: str

    def command(self, *words: str) -> list[str]:
        """`python -m words...`."""
        return [self.python, "-m", *words]

    def environment(self) -> dict[str, str]:
        """This process's; another checkout's Python must not find this one's modules."""
        variables = dict(os.environ)
        if self != THIS:
            variables.pop("PYTHONPATH", None)
            if self.python == sys.executable:
                variables["PYTHONPATH"] = os.pathsep.join(str(self.root / name) for name in ("client", "server"))
        return variables


THIS = Tree(ROOT, sys.executable)


def tree_of(directory: Path | None) -> Tree:
    """The checkout in a directory, this one if None; one without a .venv of its own is run by this Python."""
    if directory is None:
        return THIS
    root = directory.resolve()
    python = root / ".venv/bin/python"
    return Tree(root, str(python) if python.exists() else sys.executable)


class Server(NamedTuple):
    """A server that runs: host:port, that of its metrics ("" where it has none), and its first process."""

    address: str
    metrics: str
    pid: int


@contextlib.contextmanager
def server(*words: str, tree: Tree = THIS) -> Iterator[Server]:
    """A server, while it runs."""
    process = subprocess.Popen(
        tree.command(*words), cwd=tree.root, env=tree.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        ready = re.search(r"ready on ([\d.]+:\d+)(?:.*metrics on ([\d.]+:\d+))?", line)
        if ready is None:
            raise RuntimeError(f"{' '.join(words)} did not start: {line!r}")
        yield Server(ready[1], ready[2] or "", process.pid)
    finally:
        process.terminate()
        process.wait(30)
