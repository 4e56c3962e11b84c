"""The one place that starts `layerwire serve` for tests, and what they ask of its processes.

It knows that command's flags, its line when it is ready, and /metrics; nothing of what is inside.
`python -m tests.served ROLE=MODULE... FLAGS` is that command with other modules for its children.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from threading import Timer

READY = re.compile(r"ready on (\S+) .*metrics on ([^\s)]+)")
MARK = "LAYERWIRE_TEST_MARK"  # variable: a file in the server's folder by which faulty children remember what they did
PATIENCE_SECONDS = 300.0  # for a start, an end, an answer: a hang and no slow machine
# A worker that comes back on a busy machine is waited for.
_FLAGS = ("--device", "cpu", "--lame-duck-seconds", "0", "--unavailable-after-seconds", "600")


class Server:
    """A server on free ports that runs from the start; `close` it.

    Attributes:
        address: where it serves gRPC.
        metrics_address: where its /metrics are.
        log: the file with all that it wrote to standard error.
    """

    def __init__(self, folder: Path, *flags: str, modules: Mapping[str, str] | None = None) -> None:
        """Starts it.

        Args:
            folder: for its log, and for what faulty children remember.
            flags: further flags of `layerwire serve`.
            modules: what to run for "worker" or "gateway" in place of the real ones.
        """
        replaced = [f"{role}={module}" for role, module in (modules or {}).items()]
        command = ["tests.served", *replaced] if replaced else ["layerwire.cli", "serve"]
        self._command = [sys.executable, "-m", *command, *_FLAGS, *flags]
        self._environment = os.environ | {MARK: str(folder / "mark")}
        self.log = folder / "log"
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        """Starts it, on the port that it had before."""
        command = [*self._command, "--listen", self.address, "--metrics", "127.0.0.1:0"]
        with self.log.open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self._environment
            )
        assert self.process.stdout is not None
        patience = Timer(PATIENCE_SECONDS, self.process.kill)  # which ends the line that is waited for
        patience.start()
        ready = READY.search(self.process.stdout.readline())
        patience.cancel()
        if ready is None:
            self.process.kill()
            self.process.communicate()
            raise AssertionError(f"the server didn't start; its log:\n{self.log.read_text()}")
        self.address, self.metrics_address = ready.groups()

    def stop(self) -> int:
        """Stops it as an orchestrator does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        return self.process.returncode

    def close(self) -> None:
        """Stops it if it runs; whatever ended it, it ended well."""
        if self.process.poll() is None:
            self.stop()
        assert self.process.returncode == 0, self.log.read_text()

    def processes(self) -> dict[int, str]:
        """Its processes, and the role of each: "supervisor", "gateway" or "worker"."""
        root = self.process.pid
        roles = {root: "supervisor"}
        for pid in map(int, Path(f"/proc/{root}/task/{root}/children").read_text().split()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                module = "".join(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[2:3])
                roles.update((pid, role) for role in ("gateway", "worker") if role in module)
        return roles

    def pids(self, role: str) -> list[int]:
        """Its processes of a role."""
        return [pid for pid, its_role in self.processes().items() if its_role == role]

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        (total,) = self.metrics(name)
        return total

    def metrics(self, *names: str) -> list[float]:
        """The sums of several metrics' samples, from one page."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=PATIENCE_SECONDS) as page:
            samples = [line.rpartition(" ") for line in page.read().decode().splitlines() if line[0] != "#"]
        return [sum(float(value) for sample, _, value in samples if sample.partition("{")[0] == name) for name in names]


def main(*arguments: str) -> None:
    """`layerwire serve` with the modules that the arguments begin with."""
    from layerwire_server.supervisor import supervisor
    from layerwire_server.supervisor.command import serve

    replaced = list(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments))
    supervisor.MODULES.update(pair.split("=") for pair in replaced)
    serve(list(arguments[len(replaced) :]))


if __name__ == "__main__":
    main(*sys.argv[1:])
