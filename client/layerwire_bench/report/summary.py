"""What is shown of a target under a load: its point, or the medians over the rounds of a comparison.

It knows results; neither tables nor pages nor plots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from statistics import median
from typing import Any

from layerwire_bench.result import Latency, Load, Point, Run, Server, Totals

# A server's phases in the order in which a call goes through them: what they are called, and where a Server has them.
PHASES = (("queue", "queue"), ("copy in", "copy_in"), ("kernel", "kernel"), ("copy out", "copy_out"))
REST = "client, network and gateway"

PERCENTILES = (
    ("p50", "p50_seconds"),
    ("p90", "p90_seconds"),
    ("p95", "p95_seconds"),
    ("p99", "p99_seconds"),
    ("p99.9", "p999_seconds"),
)


@dataclass(frozen=True)
class Summary(Totals):
    """One target under one load.

    Attributes:
        points: all of its rounds; a single one without rounds.
        throughput: calls per second, the median of the points'.
        latency: each figure the median of the points'; None without a successful call.
        phases: mean seconds by name, of the phases that the server told.
        rest_seconds: what the phases leave of the client's mean latency; None where the server told none.
        batch_calls, batch_rows: means of the server's batches.
        client_seconds_per_call, server_seconds_per_call: processor time.
    """

    target: str
    load: Load
    points: tuple[Point, ...]
    throughput: float
    latency: Latency | None
    phases: dict[str, float]
    rest_seconds: float | None
    batch_calls: float | None
    batch_rows: float | None
    client_seconds_per_call: float | None
    server_seconds_per_call: float | None

    @property
    def steady(self) -> bool:
        return all(point.steady for point in self.points)

    @property
    def bottleneck(self) -> bool:
        """Whether the client set the figures of any point."""
        return any(point.client.bottleneck for point in self.points)


def summaries(run: Run) -> tuple[Summary, ...]:
    """Of all points, by target in the order of the run and by rising load."""
    rounds: dict[tuple[str, Load], list[Point]] = {}
    for point in run.points:
        rounds.setdefault((point.target, point.load), []).append(point)
    place = {target: at for at, target in enumerate(targets(run))}
    keys = sorted(rounds, key=lambda key: (place[key[0]], key[1].mode, key[1].size))
    return tuple(_summary(*key, tuple(rounds[key])) for key in keys)


def targets(run: Run) -> tuple[str, ...]:
    """In the order in which they were measured."""
    return tuple(dict.fromkeys(point.target for point in run.points))


def loads(rows: Iterable[Summary]) -> tuple[Load, ...]:
    """Rising."""
    return tuple(sorted({summary.load for summary in rows}, key=lambda load: (load.mode, load.size)))


def _summary(target: str, load: Load, points: tuple[Point, ...]) -> Summary:
    latency = _latency([point.latency for point in points if point.latency is not None])
    servers = [point.server for point in points if point.server is not None]
    means = {
        name: _median((getattr(server, field) for server in servers), lambda phase: phase.mean_seconds)
        for name, field in PHASES
    }
    phases = {name: mean for name, mean in means.items() if mean is not None}
    rest = None if latency is None or not phases else max(latency.mean_seconds - sum(phases.values()), 0.0)
    return Summary(
        target=target,
        load=load,
        points=points,
        throughput=median(point.throughput for point in points),
        latency=latency,
        phases=phases,
        rest_seconds=rest,
        batch_calls=_median(servers, lambda server: server.batch_calls),
        batch_rows=_median(servers, lambda server: server.batch_rows),
        client_seconds_per_call=_median(points, lambda point: point.client.cpu_seconds_per_call),
        server_seconds_per_call=_median(servers, _seconds_per_call),
    )


def _latency(all_rounds: list[Latency]) -> Latency | None:
    if not all_rounds:
        return None
    names = (field.name for field in fields(Latency))
    return Latency(**{name: median(getattr(latency, name) for latency in all_rounds) for name in names})


def _seconds_per_call(server: Server) -> float | None:
    return server.total_cpu_seconds / server.calls if server.calls and server.cpu_seconds else None


def _median(items: Iterable[Any], value: Callable[[Any], float | None]) -> float | None:
    values = [value(item) for item in items if item is not None]
    return median(there) if (there := [one for one in values if one is not None]) else None
