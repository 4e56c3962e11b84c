"""A container of the image, started by runc as Docker starts one, only stricter: read-only, no capability, no root.

It knows runc, network namespaces and the image's configuration; not what runs inside.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deploy.image_check.images import Image
from deploy.image_check.tools import ToolError, run

NETWORK = "layerwire-check"
OUTSIDE, INSIDE = "192.0.2.1", "192.0.2.2"
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_END_SECONDS = 30.0
_TMPFS = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "noexec", "mode=1777", "size=256m"]}


@contextmanager
def network() -> Iterator[None]:
    """A network namespace for containers, reached at INSIDE from this process alone.

    The process leaves the machine's network for one of its own, for good: an address given to a container must not be
    one that the machine needs, and which those are can't be known.

    Raises:
        OSError, ToolError: the kernel has no namespaces for us.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare: no network namespace")
    near, far = "outside", "inside"
    _remove_network()
    run(["ip", "netns", "add", NETWORK])
    try:
        run(["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", NETWORK])
        run(["ip", "address", "add", f"{OUTSIDE}/30", "dev", near])
        run(["ip", "-n", NETWORK, "address", "add", f"{INSIDE}/30", "dev", far])
        for where in (("dev", "lo"), ("dev", near)):
            run(["ip", "link", "set", *where, "up"])
        for where in (("dev", "lo"), ("dev", far)):
            run(["ip", "-n", NETWORK, "link", "set", *where, "up"])
        yield
    finally:
        _remove_network()


def _remove_network() -> None:
    if (Path("/var/run/netns") / NETWORK).exists():
        run(["ip", "netns", "delete", NETWORK])


class Container:
    """A container, from its start to its end."""

    def __init__(
        self, image: Image, files: Path, store: Path, bundle: Path,
        command: Sequence[str] = (), environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.image, self.store = image, store
        self.name = f"layerwire-check-{bundle.name}"
        self._runc = ["runc", "--root", str(bundle.parent / "runc")]
        self.log = bundle / "log"
        bundle.mkdir()
        run([*self._runc, "spec", "--bundle", bundle])
        specification = bundle / "config.json"
        given = json.loads(specification.read_text())
        specification.write_text(json.dumps(self._specify(given, files, command, environment or {})))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [shutil.which("runc") or "runc", *self._runc[1:], "run", "--bundle", str(bundle), self.name],
                stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True,
            )  # fmt: skip

    def _specify(
        self, given: dict[str, Any], files: Path, command: Sequence[str], environment: Mapping[str, str]
    ) -> dict[str, Any]:
        config = self.image.config
        user, group = map(int, config["User"].split(":"))
        process = given["process"]
        process |= {
            "args": [*config["Entrypoint"], *(command or config["Cmd"])],
            "capabilities": {kind: [] for kind in process["capabilities"]},
            "cwd": config["WorkingDir"],
            "env": [*config["Env"], *(f"{key}={value}" for key, value in environment.items())],
            "noNewPrivileges": True,
            "rlimits": [],  # this machine's: to raise them takes more than root
            "terminal": False,
            "user": {"uid": user, "gid": group},
        }
        volume = next(iter(config["Volumes"]))
        given["root"] = {"path": str(files), "readonly": True}
        given["mounts"] += [
            {"destination": "/tmp", **_TMPFS},  # noqa: S108  # the container's own
            {"destination": volume, "type": "bind", "source": str(self.store), "options": ["bind", "rw", "nosuid"]},
        ]
        for space in given["linux"]["namespaces"]:
            if space["type"] == "network":
                space["path"] = f"/var/run/netns/{NETWORK}"
        return given

    def first_line(self) -> str:
        """What it says first on standard output; "" if it ends without a word."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def execute(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """Runs a command inside, as the same user, and returns what it says.

        Raises:
            ToolError: its exit status is not 0.
        """
        given = [word for key, value in (environment or {}).items() for word in ("--env", f"{key}={value}")]
        return run([*self._runc, "exec", *given, self.name, *command]).strip()

    def processes(self) -> dict[int, dict[str, str]]:
        """What the kernel tells of all its processes, zombies too, by their numbers on this machine."""
        first = json.loads(run([*self._runc, "state", self.name]))["pid"]
        space = (Path("/proc") / str(first) / "ns/pid").readlink()
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone meanwhile
                if (place / "ns/pid").readlink() == space:
                    found[int(place.name)] = _status(place)
        return found

    def running(self) -> bool:
        """Whether its process 1 has been started."""
        try:
            return bool(json.loads(run([*self._runc, "state", self.name]))["status"] == "running")
        except ToolError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to its process 1."""
        run([*self._runc, "kill", self.name, number.name])

    def wait(self, timeout_seconds: float) -> int:
        """Its exit status.

        Raises:
            TimeoutExpired: it goes on.
        """
        return self.process.wait(timeout_seconds)

    def close(self) -> None:
        """Ends it, however it is."""
        if self.process.poll() is None:
            with suppress(ToolError):  # it ended meanwhile
                self.signal(signal.SIGKILL)
        self.process.communicate(timeout=_END_SECONDS)


def _status(place: Path) -> dict[str, str]:
    lines = (place / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
