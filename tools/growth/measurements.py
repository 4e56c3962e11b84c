"""What grows, and how each size of it is measured: with the load tester's parts, against a server of its own.

It knows servers and loads; neither cliffs nor pictures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

import layerwire
from layerwire_bench.plan import Pace, TargetSpec
from layerwire_bench.result import Load
from layerwire_bench.sending import mix, operators
from layerwire_bench.sending.tensors import SampleSettings
from layerwire_bench.workload import Workload
from tools.benchmarks.contenders import Session, WrongAnswerError
from tools.benchmarks.servers import LAYERWIRE, Server, Tree, server
from tools.growth.curve import Growth, Point

Measure = Callable[[Tree, float], Iterator[Point]]

LARGEST_BYTES = 1 << 28
MESSAGE_BYTES = LARGEST_BYTES + (1 << 20)
LANE_CALLERS = 256
ONE_SAMPLE = SampleSettings(samples=1)
_WARMUP_SECONDS = 0.5


def _point(session: Session, size: float, callers: int, seconds: float) -> Point:
    pace = Pace(_WARMUP_SECONDS, 0.25, duration_seconds=seconds)
    point = session.outcome(0, Load("closed", callers=callers), pace).point
    if point.latency is None or point.failures:
        raise RuntimeError(f"{size:,.0f}: {point.failures} calls failed: {point.first_error or 'no call ended'}")
    return Point(size, point.throughput, point.latency.p50_seconds)


@contextlib.contextmanager
def _session(target: Server, workload: Workload) -> Iterator[Session]:
    session = Session(workload, [TargetSpec("stream", target.address)])
    try:
        yield session
    finally:
        session.close()


def _relu(*sizes: int) -> Workload:
    """relu on (1, n) for each n, in equal shares."""
    return mix.workload(
        [operators.entry_for("relu", (1, n), settings=ONE_SAMPLE, index=index) for index, n in enumerate(sizes)]
    )


def callers(tree: Tree, seconds: float) -> Iterator[Point]:
    """More callers that each wait."""
    with server(*LAYERWIRE, tree=tree) as target, _session(target, _relu(10)) as session:
        for size in CALLERS.sizes:
            yield _point(session, size, int(size), seconds)


def _payload(shared_memory: Literal["auto", "off"]) -> Measure:
    """Larger tensors, one caller, by the SDK; throughput is in bytes there and back."""

    def measure(tree: Tree, seconds: float) -> Iterator[Point]:
        with server(*LAYERWIRE, "--max-message-bytes", str(MESSAGE_BYTES), tree=tree) as target:
            yield from _payload_points(target, shared_memory, seconds)

    return measure


def _payload_points(target: Server, shared_memory: Literal["auto", "off"], seconds: float) -> Iterator[Point]:
    with layerwire.Client(
        target.address, max_message_bytes=MESSAGE_BYTES, max_bytes_in_flight=1 << 30, shared_memory=shared_memory
    ) as client:
        for size in PAYLOAD.sizes:
            x = np.random.default_rng(7).normal(size=int(size) // 4).astype(np.float32)
            latencies: list[float] = []
            if not np.array_equal(client.relu(x), np.maximum(x, 0)):
                raise WrongAnswerError(f"{size:,.0f} bytes: another answer than numpy's")
            end = time.perf_counter() + seconds
            while len(latencies) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                client.relu(x)
                latencies.append(time.perf_counter() - start)
            yield Point(size, 2 * size * len(latencies) / sum(latencies), statistics.median(latencies))


def lanes(tree: Tree, seconds: float) -> Iterator[Point]:
    """More shapes at once, which can't share a batch, among as many callers."""
    with server(*LAYERWIRE, tree=tree) as target:
        for size in LANES.sizes:
            with _session(target, _shapes(int(size))) as session:
                yield _point(session, size, LANE_CALLERS, seconds)


def _shapes(count: int) -> Workload:
    """softmax over rows of so many lengths: rows of one length share a batch."""
    kinds = [
        operators.entry_for("softmax", (1, 10 + index), {"dim": 1}, settings=ONE_SAMPLE, index=index)
        for index in range(count)
    ]
    return mix.workload(kinds)


def parameters(tree: Tree, seconds: float) -> Iterator[Point]:
    """More operators that differ in a parameter, of which each has a plan and a lane of its own."""
    with server(*LAYERWIRE, tree=tree) as target:
        for size in PARAMETERS.sizes:
            kinds = [
                operators.entry_for("leaky_relu", (1, 10), {"negative_slope": (index + 1) / 8192},
                                    settings=ONE_SAMPLE, index=index)
                for index in range(int(size))
            ]  # fmt: skip
            with _session(target, mix.workload(kinds)) as session:
                yield _point(session, size, LANE_CALLERS, seconds)


def _several(flag: str, growth: Growth) -> Measure:
    def measure(tree: Tree, seconds: float) -> Iterator[Point]:
        for size in growth.sizes:
            with server(*LAYERWIRE, flag, str(int(size)), tree=tree) as target, _session(target, _relu(10)) as session:
                yield _point(session, size, 64, seconds)

    return measure


def _constant(_ratio: float) -> float:
    return 1.0


def _proportional(ratio: float) -> float:
    return ratio


def _inverse(ratio: float) -> float:
    return 1 / ratio


# Callers: throughput must not fall; at saturation latency grows as they do.
CALLERS = Growth("callers", "relu (1, 10) by the stream", "callers", "calls/s", _constant, _proportional,
                 tuple(float(1 << power) for power in range(11)))  # fmt: skip
# Bytes: bytes a second must not fall; a call's time grows as they do.
PAYLOAD = Growth("payload", "relu by the SDK, one caller, by gRPC", "bytes", "bytes/s", _constant, _proportional,
                 tuple(float(4 << (2 * power)) for power in range(14)))  # fmt: skip
SHARED = dataclasses.replace(PAYLOAD, name="shared-payload", title="relu by the SDK, one caller, by shared memory")
# Lanes: a batch of 256 callers falls apart into as many; below one call a batch nothing is left to lose. A tenth of the
# batch's size may cost that much of what batching saved, and no more than all of it.
LANES = Growth("lanes", f"softmax of rows of several lengths at once, {LANE_CALLERS} callers", "lanes", "calls/s",
               lambda ratio: max(_inverse(ratio), 0.35), lambda ratio: min(ratio, 3.0),
               (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0))  # fmt: skip
PARAMETERS = Growth("parameters", f"leaky_relu of several slopes at once, {LANE_CALLERS} callers", "slopes", "calls/s",
                    LANES.keeps, LANES.latency, (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0))  # fmt: skip
# Processes: on a machine with fewer cores they only share those there are.
GATEWAYS = Growth("gateways", "relu (1, 10) by the stream, 64 callers", "gateways", "calls/s", _constant, _constant,
                  (1.0, 2.0, 3.0, 4.0))  # fmt: skip
WORKERS = Growth("workers", "relu (1, 10) by the stream, 64 callers", "workers", "calls/s", _constant, _constant,
                 (1.0, 2.0, 3.0, 4.0))  # fmt: skip
GROWTHS: dict[str, tuple[Growth, Measure]] = {
    "callers": (CALLERS, callers),
    "payload": (PAYLOAD, _payload("off")),
    "shared-payload": (SHARED, _payload("auto")),
    "lanes": (LANES, lanes),
    "parameters": (PARAMETERS, parameters),
    "gateways": (GATEWAYS, _several("--gateways", GATEWAYS)),
    "workers": (WORKERS, _several("--workers", WORKERS)),
}
