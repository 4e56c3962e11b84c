"""A run as CSV with the columns of perf_analyzer, so that what reads its files reads these.

It knows names and units of columns; nothing of how a file is made.

As there: a row a measurement, by rising throughput; latencies and phases in whole microseconds, phases as means over
calls; an inference is a call. The client doesn't time its sending and receiving by themselves: they are 0, and its and
the network's part of the mean latency is in "Network+Server Send/Recv", so that the seven parts add up to the mean.
Columns of the server are left out where no measurement has them, and a cell is empty where it isn't known. The columns
from "Avg latency" on are additional.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import TypeAlias

from layerwire_bench.report.summary import PHASES
from layerwire_bench.result import Point, Run

Cell: TypeAlias = str | int | float | None
Column: TypeAlias = tuple[str, Callable[[Point], Cell]]


def to_csv(run: Run) -> str:
    """One file for all targets and rounds; lines end in newlines."""
    columns = _columns(run)
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(name for name, _ in columns)
    for point in sorted(run.points, key=lambda point: point.throughput):
        writer.writerow(value(point) for _, value in columns)
    return written.getvalue()


def _columns(run: Run) -> tuple[Column, ...]:
    open_loop = any(point.load.rate is not None for point in run.points)
    load = _RATE if open_loop else _CONCURRENCY
    server = _SERVER if any(point.server is not None for point in run.points) else ()
    return (load, *_CLIENT, *server, ("Client Recv", lambda _: 0), *_PERCENTILES, *_MORE)


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


def _of_latency(field: str) -> Callable[[Point], Cell]:
    return lambda point: _microseconds(getattr(point.latency, field)) if point.latency is not None else None


def _phase(field: str) -> Callable[[Point], Cell]:
    return lambda point: _microseconds(_phase_seconds(point, field))


def _phase_seconds(point: Point, field: str) -> float | None:
    phase = getattr(point.server, field, None)
    return None if phase is None else float(phase.mean_seconds)


def _rest(point: Point) -> int | None:
    """Of two measurements that can differ a little, hence at least 0. In whole numbers, so that the parts add up."""
    if point.latency is None:
        return None
    told = sum(_microseconds(_phase_seconds(point, field)) or 0 for _, field in PHASES)
    return max(round(point.latency.mean_seconds * 1e6) - told, 0)


_CONCURRENCY: Column = ("Concurrency", lambda point: point.load.callers)
_RATE: Column = ("Request Rate", lambda point: point.load.rate)
_CLIENT: tuple[Column, ...] = (
    ("Inferences/Second", lambda point: round(point.throughput, 3)),
    ("Client Send", lambda _: 0),
)
_SERVER: tuple[Column, ...] = (
    ("Network+Server Send/Recv", _rest),
    ("Server Queue", _phase("queue")),
    ("Server Compute Input", _phase("copy_in")),
    ("Server Compute Infer", _phase("kernel")),
    ("Server Compute Output", _phase("copy_out")),
)
_PERCENTILES: tuple[Column, ...] = (
    ("p50 latency", _of_latency("p50_seconds")),
    ("p90 latency", _of_latency("p90_seconds")),
    ("p95 latency", _of_latency("p95_seconds")),
    ("p99 latency", _of_latency("p99_seconds")),
)
_MORE: tuple[Column, ...] = (
    ("Avg latency", _of_latency("mean_seconds")),
    ("p99.9 latency", _of_latency("p999_seconds")),
    ("Calls", lambda point: point.calls),
    ("Errors", lambda point: point.failed),
    ("Wrong", lambda point: point.wrong),
    ("Steady", lambda point: int(point.steady)),
    ("Target", lambda point: point.target),
    ("Round", lambda point: point.round or None),
)
