"""`python -m deploy.image_check`: builds the image on a base made here, starts it, calls it, and tells what held.

It knows the order of the steps; what is checked is in on_disk.py and running.py.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from deploy.image_check import base, container, images, needs, on_disk, pip_settings, running
from deploy.image_check.images import Image
from deploy.image_check.pip_settings import PipSettings
from deploy.image_check.tools import Buildah
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "layerwire" / "image-check"
_MIB = 1 << 20
_CODE = Path("client/layerwire/__init__.py")
_LAYERS = ("base", "user, store, pip removed", "tini", "torch and what it needs", "other packages", "Layerwire")
_NOT_RUN = (
    "not run: the official Python base image (Debian's Python stands in for it), a registry, docker build,"
    " seccomp and AppArmor profiles; of target cuda, CUDA's wheels and a GPU"
)

_S = TypeVar("_S")


@dataclass
class Report:
    """What held and what didn't, told as it is found."""

    console: Console
    rows: list[tuple[str, bool, str]] = field(default_factory=list)

    def check(self, name: str, find: Callable[[], str]) -> bool:
        """Whether a check holds; one that raises, whatever it is, doesn't."""
        try:
            held, seen = True, find()
        except Exception as error:
            held, seen = False, str(error) or repr(error)
        self.rows.append((name, held, seen))
        self.console.print("held  " if held else "BROKEN", name, "-", seen, markup=False, highlight=False)
        return held

    def check_all(self, checks: Mapping[str, Callable[[_S], str]], subject: _S) -> None:
        """Runs a table of checks."""
        for name, find in checks.items():
            self.check(name, lambda find=find: find(subject))  # type: ignore[misc]

    def table(self) -> Table:
        """All of it."""
        table = Table("check", "held", "seen", title="image-check")
        for name, held, seen in self.rows:
            table.add_row(name, "yes" if held else "NO", seen.splitlines()[0][:100])
        return table


def main() -> int:
    """Exit status: 0 where all held, or the check can't run here; else 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended, as with Ctrl-C
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    console = Console(width=None if sys.stdout.isatty() else 140)
    missing = needs.missing()
    if missing:
        console.print(f"image-check: SKIPPED, {missing}")
        return 0
    os.environ["no_proxy"] = ",".join(filter(None, (os.environ.get("no_proxy"), container.INSIDE, "127.0.0.1")))
    report = Report(console)
    started = time.monotonic()
    with _alone(console), tempfile.TemporaryDirectory(prefix="image-check-") as scratch:
        buildah = Buildah(CACHE)
        buildah.run("rm", "--all")  # what a check that was killed has left
        try:
            _check(report, buildah, Path(scratch))
        except Exception as error:
            report.rows.append(("the check ran to its end", False, str(error)))
            console.print(error, markup=False)
    console.print(report.table())
    console.print(_NOT_RUN, highlight=False)
    broken = sum(not held for _, held, _ in report.rows)
    console.print(f"{len(report.rows) - broken} held, {broken} broken, {time.monotonic() - started:.0f} s")
    return 1 if broken else 0


def _check(report: Report, buildah: Buildah, scratch: Path) -> None:
    console = report.console
    console.print(f"base image: made by debootstrap, unless it is in {CACHE}", highlight=False)
    base.make(buildah, base.name_in(ROOT / images.DOCKERFILE), scratch)
    with pip_settings.handed_over(scratch) as pip:
        console.print("images: cpu, cpu with changed code, cuda")
        started = time.monotonic()
        cpu = images.build(buildah, ROOT, "cpu", pip, scratch / "cpu.log")
        report.check("target cpu builds", lambda: f"{time.monotonic() - started:.0f} s, less what was in the cache")
        console.print(_layers(cpu))
        report.check("a change of the code is one layer", lambda: _rebuild(buildah, cpu, pip, scratch))
        report.check("target cuda builds, with the CPU's wheel", lambda: _build_cuda(buildah, cpu, pip, scratch))
    with images.mounted(buildah, cpu) as files:
        subject = on_disk.Subject(cpu, files, ROOT / "constraints.txt", pip_settings.MARKER)
        report.check_all(on_disk.CHECKS, subject)
        with container.network(), running.rig(cpu, files, scratch) as rig:
            if report.check("becomes ready", lambda: running.becomes_ready(rig)):
                report.check_all(running.CHECKS, rig)


def _rebuild(buildah: Buildah, before: Image, pip: PipSettings, scratch: Path) -> str:
    """A line more in the SDK must give new bytes in the last layer alone."""
    context = scratch / "changed"
    context.mkdir()
    images.copy_context(ROOT, context)
    with (context / _CODE).open("a") as file:
        file.write("# changed\n")
    started = time.monotonic()
    after = images.build(buildah, context, "cpu", pip, scratch / "changed.log", tag="changed")
    same = [old.digest == new.digest for old, new in zip(before.layers, after.layers, strict=True)]
    on_disk.need(same == [True] * (len(same) - 1) + [False], f"layers that stay: {same}")
    last = after.layers[-1].size_bytes / _MIB
    return f"{len(same) - 1} layers stay, 1 of {last:.1f} MiB is new, in {time.monotonic() - started:.0f} s"


def _build_cuda(buildah: Buildah, cpu: Image, pip: PipSettings, scratch: Path) -> str:
    """Every instruction of the target but the gigabytes: the index that it is told has the CPU's wheel."""
    index = {"TORCH_CUDA_INDEX": "https://download.pytorch.org/whl/cpu"}
    cuda = images.build(buildah, ROOT, "cuda", pip, scratch / "cuda.log", index)
    new = set(cuda.config["Env"]) - set(cpu.config["Env"])
    on_disk.need(any(word.startswith("NVIDIA_VISIBLE_DEVICES=") for word in new), f"variables: {new}")
    on_disk.need(cuda.config["Entrypoint"] == cpu.config["Entrypoint"], f"Entrypoint: {cuda.config['Entrypoint']}")
    return f"with {', '.join(sorted(new))}"


def _layers(image: Image) -> Table:
    table = Table("layer", "MiB", title=f"{image.name}, {image.size_bytes / _MIB:,.0f} MiB before compression")
    for name, layer in zip(_LAYERS, image.layers, strict=True):
        table.add_row(name, f"{layer.size_bytes / _MIB:,.1f}")
    return table


@contextmanager
def _alone(console: Console) -> Iterator[None]:
    """One check at a time: storage, network and cache are the same for all."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("image-check: waits for another one to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
