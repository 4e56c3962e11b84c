"""What was measured, as the tables of BENCHMARKS.md.

It knows runs and Markdown; nothing of how they were measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from layerwire_bench.result import Machine, Point, Run

NAMES = {
    "bare": "bare grpc.aio server, no batching",
    "stream": "Layerwire, stream",
    "unary": "Layerwire, unary",
    "oip": "Layerwire, inference protocol",
    "local": "torch in the client's process",
}


def comparison(title: str, run: Run, targets: Sequence[str], least_ratio: float | None) -> str:
    """Medians over rounds, least and most, and ratios to the bare server. `targets` are the standing set's names."""
    spellings = dict(zip(targets, dict.fromkeys(point.target for point in _by_round(run.points)), strict=True))
    rates = {name: [point.throughput for point in run.points if point.target == spellings[name]] for name in targets}
    first = statistics.median(rates[targets[0]])
    rows = [
        (
            NAMES[name], _rate(statistics.median(values)), _rate(min(values)), _rate(max(values)),
            _milliseconds(run, spellings[name], "p50_seconds"), _milliseconds(run, spellings[name], "p99_seconds"),
            _rows(run, spellings[name]), f"{statistics.median(values) / first:.2f}",
        )
        for name, values in rates.items()
    ]  # fmt: skip
    load = run.points[0].load
    heads = (f"{title}, {load}", "calls/s, median", "least", "most", "p50 ms", "p99 ms", "rows a batch", "ratio")
    goal = "" if least_ratio is None else f"\n\nHeld against: stream at least {least_ratio:g} times the bare server."
    return table(heads, rows) + goal


def _by_round(points: Sequence[Point]) -> list[Point]:
    """Those of the first round come in the targets' order."""
    return sorted(points, key=lambda point: point.round)


def _milliseconds(run: Run, target: str, field: str) -> str:
    seconds = [getattr(point.latency, field) for point in run.points if point.target == target and point.latency]
    return f"{statistics.median(seconds) * 1e3:.3g}" if seconds else "-"


def _rows(run: Run, target: str) -> str:
    rows = [
        point.server.batch_rows
        for point in run.points
        if point.target == target and point.server is not None and point.server.batch_rows is not None
    ]
    return f"{statistics.median(rows):.1f}" if rows else "-"


def searches(title: str, bound_seconds: float, runs: Mapping[str, Run]) -> str:
    """The highest rates that kept a bound."""
    rows = []
    for name, run in runs.items():
        assert run.search is not None
        best = run.search.best_rate
        point = next((run.points[trial.point] for trial in run.search.trials if trial.rate == best), None)
        p50, p99 = ("-", "-") if point is None else (_ms(point, "p50_seconds"), _ms(point, "p99_seconds"))
        rows.append((NAMES[name], "none" if best is None else _rate(best), p50, p99))
    heads = (f"{title}, Poisson arrivals", f"calls/s with p99 at most {bound_seconds * 1e3:g} ms", "p50 ms", "p99 ms")
    return table(heads, rows)


def _rate(calls_per_second: float) -> str:
    return f"{calls_per_second:,.0f}" if calls_per_second >= 100 else f"{calls_per_second:.1f}"


def _ms(point: Point, field: str) -> str:
    return "-" if point.latency is None else f"{getattr(point.latency, field) * 1e3:.3g}"


def machine(host: Machine) -> str:
    """A paragraph on where it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in host.versions.items())
    memory = "" if host.memory_bytes is None else f", {host.memory_bytes / 2**30:.0f} GiB of memory"
    return f"{host.cores} cores of {host.cpu}{memory}, {host.system}; {versions}."


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
