"""Measures a comparison with the load tester's own parts: rounds in turn, all answers checked by sample."""

from __future__ import annotations

from rich.console import Console

from layerwire_bench import display
from layerwire_bench.conductor import Conductor, LatencyBound, Plan
from layerwire_bench.plan import Job, Pace, TargetSpec
from layerwire_bench.result import Load, Run
from layerwire_bench.servers.info import server_info
from layerwire_bench.servers.page import PageCounters
from tools.benchmarks.comparisons import Comparison
from tools.benchmarks.servers import Addresses

TIMEOUT_SECONDS = 30.0


def spec(target: str, addresses: Addresses) -> TargetSpec:
    """Where a target of the standing set is."""
    if target == "bare":
        return TargetSpec("unary", addresses.bare)
    return TargetSpec.parse(target, "stream", addresses.layerwire)


def compare(comparison: Comparison, addresses: Addresses, callers: int, rounds: int, seconds: float) -> Run:
    """All targets in turn, round by round."""
    pace = Pace(warmup_seconds=0.5, window_seconds=0.5, duration_seconds=seconds)
    plan = _plan(comparison, addresses, comparison.targets, (Load("closed", callers=callers),), pace, rounds, None)
    return _run(plan)


def search(comparison: Comparison, addresses: Addresses, target: str, bound_seconds: float) -> Run:
    """The highest rate of Poisson arrivals at which 99% of calls are answered in time."""
    return _run(_plan(comparison, addresses, (target,), (), Pace(), 1, LatencyBound(bound_seconds)))


def _plan(
    comparison: Comparison, addresses: Addresses, targets: tuple[str, ...], loads: tuple[Load, ...], pace: Pace,
    rounds: int, bound: LatencyBound | None,
) -> Plan:  # fmt: skip
    specs = tuple(spec(target, addresses) for target in targets)
    workload = comparison.workload(addresses.layerwire)
    names = {
        sample.request.family if sample.request.family == "run" else sample.request.function
        for sample in workload.samples
    }
    counts = tuple(
        PageCounters(addresses.metrics, names) if one.address == addresses.layerwire else None for one in specs
    )
    job = Job(specs, workload, "sample", 0, TIMEOUT_SECONDS)
    servers = tuple(server_info(one) for one in specs)
    return Plan(job, loads, pace, 1, rounds, bound, counts, servers, "make bench")


def _run(plan: Plan) -> Run:
    with display.display(Console(stderr=True), plan.points) as watcher:
        run = Conductor(plan, watcher).run()
    if run.failure is not None or run.interrupted:
        raise SystemExit(f"ended early: {run.failure or 'interrupted'}")
    if run.wrong:
        raise SystemExit(f"WRONG ANSWERS: {next(point.first_wrong for point in run.points if point.wrong)}")
    return run
