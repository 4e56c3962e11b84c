"""A container of the image, started by podman as Docker starts one, only stricter: read-only, no capability, no root.

It knows podman and the kernel's word on processes; not what runs inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.containers.image.podman import follow, podman

VOLUME = "layerwire-check"
# Without the host's limits, which take more than root to raise, and its proxy.
_STRICT = (
    "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:mode=1777,size=256m,noexec,nosuid,nodev", "--cap-drop=all",
    "--security-opt=no-new-privileges", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096", "--http-proxy=false",
)  # fmt: skip
_PORTS = ("--network=slirp4netns", "--publish=127.0.0.1::50051", "--publish=127.0.0.1::9464")


class Container:
    """A container, from its start to its end.

    Args:
        image: its name.
        command: words after the image's name; none for its own.
        environment: variables beside the image's, and beside the one that does without TLS.
        beside: another container whose network it is in; None for one of its own, reached at `address`.
    """

    def __init__(
        self, image: str, *command: str, environment: Mapping[str, str] | None = None, beside: Container | None = None
    ) -> None:
        network = _PORTS if beside is None else (f"--network=container:{beside.name}",)
        # As Docker's, a new volume starts as the image's own folder, owner and mode with it.
        volume = f"--volume={VOLUME}:/var/lib/layerwire"
        variables = _variables({"LAYERWIRE_INSECURE_LISTEN": "true"} | dict(environment or {}))
        self.name = podman("run", "--detach", *_STRICT, *network, volume, *variables, image, *command)

    def address(self, port: int) -> str:
        """Where a port is reached from outside."""
        return podman("port", self.name, f"{port}/tcp")

    def first_line(self) -> str:
        """What it says first on standard output; "" if it ends without a word."""
        with follow("logs", "--follow", self.name) as logs:
            assert logs.stdout is not None
            line = logs.stdout.readline().strip()
            logs.terminate()
        return line

    def output(self) -> str:
        """All that it said."""
        return podman("logs", self.name, errors_too=True)

    def execute(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        """Runs a command inside, as the same user, and returns what it says.

        Raises:
            ToolError: its exit status is not 0.
        """
        return podman("exec", *_variables(environment), self.name, *command)

    def processes(self) -> dict[int, dict[str, str]]:
        """What the kernel tells of all its processes, zombies too, by their numbers on this machine."""
        first = podman("inspect", "--format", "{{.State.Pid}}", self.name)
        space = (Path("/proc") / first / "ns/pid").readlink()
        statuses = {}
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone meanwhile
                if (place / "ns/pid").readlink() == space:
                    statuses[int(place.name)] = _status(place)
        return statuses

    def terminate(self) -> None:
        """Sends SIGTERM to its process 1."""
        podman("kill", "--signal=TERM", self.name)

    def wait(self, timeout_seconds: float) -> int:
        """Its exit status.

        Raises:
            TimeoutExpired: it goes on.
        """
        return int(podman("wait", self.name, timeout=timeout_seconds))

    def remove(self) -> None:
        """Ends it, however it is, and forgets it."""
        podman("rm", "--force", "--time=0", self.name)


def _variables(environment: Mapping[str, str] | None) -> list[str]:
    return [f"--env={name}={value}" for name, value in (environment or {}).items()]


def _status(place: Path) -> dict[str, str]:
    lines = (place / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
