"""What must hold of containers of the image: answers, least privilege, deaths, SIGTERM, the store.

It knows the SDK, the ports and the kernel's word on processes; how a container is started is container.py's.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from deploy.image_check.container import INSIDE, Container
from deploy.image_check.images import Image
from deploy.image_check.on_disk import need
from deploy.image_check.tools import ToolError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

import layerwire

ADDRESS, METRICS = f"{INSIDE}:50051", f"{INSIDE}:9464"
_SOON_SECONDS = 60.0
_COMMAND_SECONDS = 180.0
_READ_ONLY = ("/", "/etc", "/opt/layerwire", "/opt/layerwire/lib", "/usr/local", "/var/lib")
_WRITABLE = ("/tmp", "/var/lib/layerwire")  # noqa: S108  # the container's own
_COMMANDS = (
    ("info", "127.0.0.1:50051"),
    ("bench", "127.0.0.1:50051", "relu", "--shape", "8,8", "--concurrency", "2", "--verify", "all", "--warmup", "100ms",
     "--window", "200ms", "--duration", "600ms", "--html", "/tmp/page.html"),  # noqa: S108  # the container's own
)  # fmt: skip
_DRAW = "import matplotlib.pyplot as p; p.plot([1, 2]); p.savefig('/tmp/drawn.svg')"
_SLOW = {"LAYERWIRE_MAX_DELAY_SECONDS": "1"}  # a lone call waits so long for company


@dataclass
class Rig:
    """Where containers of an image are started; `server` is the one that serves."""

    image: Image
    files: Path
    scratch: Path
    store: Path
    containers: list[Container] = field(default_factory=list)
    weights: np.ndarray = field(default_factory=lambda: np.arange(12, dtype="float32").reshape(3, 4))

    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def server(self) -> Container:
        """The one that serves, which was started last."""
        return self.containers[-1]

    def start(self, command: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Container:
        """Starts a container; of the same address as all others."""
        bundle = self.scratch / f"container-{next(self._numbers)}"
        self.containers.append(Container(self.image, self.files, self.store, bundle, command, environment))
        return self.containers[-1]

    def serve(self, environment: Mapping[str, str] | None = None) -> str:
        """Starts a server and returns its ready line."""
        started = time.monotonic()
        line = self.start(environment=environment).first_line()
        need("ready on 0.0.0.0:50051" in line, f"{line!r}; {self.server.log.read_text()[-500:]}")
        return f"{line} ({time.monotonic() - started:.1f} s from the container's start)"

    def close(self) -> None:
        """Ends all containers."""
        for container in self.containers:
            container.close()


def becomes_ready(rig: Rig) -> str:
    """It says its one line, by its own defaults, with a read-only root."""
    return rig.serve()


def least_privilege(rig: Rig) -> str:
    """Every process is the image's user, without a capability, and can gain none."""
    user = rig.image.config["User"].partition(":")[0]
    processes = rig.server.processes().values()
    for told in processes:
        held = {told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        need(set(told["Uid"].split()) == {user}, f"{told['Name']} has the uids {told['Uid']}")
        need({int(bits, 16) for bits in held} == {0}, f"{told['Name']} has capabilities {held}")
        need(told["NoNewPrivs"] == "1", f"{told['Name']} may gain privileges")
    need(len(processes) > 2, f"only {len(processes)} processes")
    return f"{len(processes)} processes, uid {user}"


def read_only(rig: Rig) -> str:
    """Nothing but /tmp and the store takes a file."""
    for folder in _WRITABLE:
        rig.server.execute("sh", "-c", f": > {folder}/probe && rm {folder}/probe")
    mounts = [line.split() for line in rig.server.execute("cat", "/proc/mounts").splitlines()]
    root = next(options for _, place, _, options, *_ in mounts if place == "/")
    need("ro" in root.split(","), f"the root is mounted {root}")
    for folder in _READ_ONLY:
        try:
            rig.server.execute("sh", "-c", f": > {folder}/probe")
        except ToolError:
            continue
        need(False, f"{folder} takes a file")
    return f"writes to {' and '.join(_WRITABLE)} alone"


def answers(rig: Rig) -> str:
    """A call from outside gets numpy's numbers; weights go into the store."""
    x = np.linspace(-2, 2, 4096, dtype="float32").reshape(64, 64)
    with layerwire.Client(ADDRESS) as client:
        need(np.array_equal(client.relu(x), np.maximum(x, 0)), "relu differs from numpy")
        client.put_weights("kept", rig.weights)
    need(serving() is True, "health says it isn't serving")
    return f"relu of {x.shape} at {ADDRESS}"


def metrics_page(_rig: Rig) -> str:
    """/metrics is served outside and counts the call."""
    count = sample("layerwire_calls_total")
    need(count >= 1, f"layerwire_calls_total is {count}")
    need(sample("layerwire_worker_up") == 1, "no worker is up")
    return f"layerwire_calls_total {count:g} at {METRICS}"


def health_check(rig: Rig) -> str:
    """HEALTHCHECK's own words give 0 while it serves, and 1 where nothing listens."""
    kind, *command = rig.image.config["Healthcheck"]["Test"]
    need(kind == "CMD", f"HEALTHCHECK of kind {kind}")
    started = time.monotonic()
    said = rig.server.execute(*command)
    seconds = time.monotonic() - started
    try:
        rig.server.execute(*command, environment={"LAYERWIRE_LISTEN": "0.0.0.0:1"})
    except ToolError as error:
        need("exit status 1\n" in str(error), str(error))
        return f"{said}, in {seconds:.1f} s"
    raise ToolError("HEALTHCHECK is healthy where nothing listens")


def other_commands(rig: Rig) -> str:
    """Words after the image's name replace `serve`, and the load tester is among them; plots can be drawn."""
    server = rig.server
    for command in _COMMANDS:
        other = rig.start(command)
        said, _ = other.process.communicate(timeout=_COMMAND_SECONDS)
        rig.containers.remove(other)
        need(other.process.returncode == 0, f"{command}: {said}{other.log.read_text()}")
    server.execute("python", "-W", "error", "-c", _DRAW)
    return "info, a load test of the server with its page, and a plot with matplotlib"


def deaths(rig: Rig) -> str:
    """A killed worker is replaced, and process 1 leaves no zombies: neither of it nor of strangers."""
    worker = next(pid for pid in rig.server.processes() if b"layerwire_server.worker" in _command(pid))
    os.kill(worker, signal.SIGKILL)
    until(lambda: sample("layerwire_worker_restarts_total") == 1 and serving() is True, "no new worker")
    rig.server.execute("sh", "-c", "(exec sleep 0.1) & exit 0")
    until(lambda: "sleep" not in {told["Name"] for told in rig.server.processes().values()}, "an orphan isn't reaped")
    states = [told["State"] for told in rig.server.processes().values()]
    need(not any("zombie" in state for state in states), f"{states}")
    return f"replaced; {len(states)} processes, none a zombie"


def ends_when_told(rig: Rig) -> str:
    """SIGTERM to process 1 ends an idle server with 0."""
    started = time.monotonic()
    rig.server.signal(signal.SIGTERM)
    status = rig.server.wait(_SOON_SECONDS)
    need(status == 0, f"exit status {status}; {rig.server.log.read_text()[-500:]}")
    return f"exit status 0 after {time.monotonic() - started:.1f} s"


def keeps_the_store(rig: Rig) -> str:
    """A new container on the same volume has the weights, and they are right."""
    rig.serve(_SLOW)
    x = np.ones((2, 4), "float32")
    with layerwire.Client(ADDRESS) as client:
        need(np.allclose(client.linear(x, "kept"), x @ rig.weights.T), "linear by name differs from numpy")
    return "linear with the stored weights"


def drains(rig: Rig) -> str:
    """A call that is inside when SIGTERM comes is answered, then it ends with 0."""
    x = np.array([-1.0, 2.0], "float32")
    with layerwire.Client(ADDRESS) as client:
        client.wait_ready(_SOON_SECONDS)
        future = client.submit.relu(x)
        until(lambda: sample("layerwire_queue_calls") == 1, "the call never waited")
        rig.server.signal(signal.SIGTERM)
        need(not future.done(), "the call was over before SIGTERM")
        need(np.array_equal(future.result(), np.maximum(x, 0)), "the answer differs from numpy")
    status = rig.server.wait(_SOON_SECONDS)
    need(status == 0, f"exit status {status}; {rig.server.log.read_text()[-500:]}")
    return "one call inside, answered, exit status 0"


def ends_while_starting(rig: Rig) -> str:
    """SIGTERM that comes before Python listens for it isn't lost."""
    container = rig.start()
    until(container.running, "it never runs")
    container.signal(signal.SIGTERM)
    started = time.monotonic()
    try:
        status = container.wait(_SOON_SECONDS)
    except subprocess.TimeoutExpired:
        need(False, f"runs on for {_SOON_SECONDS:g} s")
    return f"exit status {status} after {time.monotonic() - started:.1f} s"


def sample(name: str) -> float:
    """The sum of a metric's samples, from outside."""
    with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=_SOON_SECONDS) as page:
        families = text_string_to_metric_families(page.read().decode())
    return sum(each.value for family in families for each in family.samples if each.name == name)


def serving() -> bool:
    """What grpc.health.v1 says, from outside."""
    with grpc.insecure_channel(ADDRESS, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_SOON_SECONDS)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def until(holds: Callable[[], bool], otherwise: str) -> None:
    """Asks again and again, for what has no event outside a container.

    Raises:
        BrokenError: it never held.
    """
    deadline = time.monotonic() + _SOON_SECONDS
    while not holds():
        need(time.monotonic() < deadline, otherwise)
        time.sleep(0.02)


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@contextmanager
def rig(image: Image, files: Path, scratch: Path) -> Iterator[Rig]:
    """A place for containers, and a volume that starts as the image's own folder, as Docker makes one."""
    store = scratch / "store"
    store.mkdir()
    first = (files / next(iter(image.config["Volumes"])).lstrip("/")).stat()
    os.chown(store, first.st_uid, first.st_gid)
    store.chmod(first.st_mode & 0o7777)
    made = Rig(image, files, scratch, store)
    try:
        yield made
    finally:
        made.close()


CHECKS: dict[str, Callable[[Rig], str]] = {  # in this order, after becomes_ready: each has what the one before left
    "no root, no capabilities": least_privilege,
    "root filesystem is read-only": read_only,
    "answers calls from outside": answers,
    "metrics from outside": metrics_page,
    "HEALTHCHECK tells both states": health_check,
    "runs other commands": other_commands,
    "replaces a dead worker, leaves no zombies": deaths,
    "SIGTERM ends it": ends_when_told,
    "a new container finds the store": keeps_the_store,
    "SIGTERM drains": drains,
    "SIGTERM while starting ends it": ends_while_starting,
}
