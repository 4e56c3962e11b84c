"""Example runs to show, one of each kind, broken and hostile ones among them.

They are made of the model's points; nothing here measures.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from layerwire_bench.result import Load, Machine, Part, Point, Ratio, Run, Search, ServerInfo, Trial
from tests.layerwire_bench.report.model import BELL, LOCAL, STREAM, UNARY, WINDOW_SECONDS, latency, point


def run(kind: str, command: str, points: Iterable[Point], **more: object) -> Run:
    """A run of these points."""
    points = tuple(points)
    targets = dict.fromkeys(point.target for point in points)
    facts = {"version": "0.1.0", "torch": "2.13.0", "workers": "1", "device": "cpu", "batch rows": "256 at most"}
    values = {
        "command": f"layerwire bench {command}",
        "started": "2026-11-21T11:13:02+00:00",
        "seconds": points[-1].start_seconds + points[-1].seconds if points else 0.4,
        "kind": kind,
        "workload": ("max_pool2d (1,3,32,32) float32, kernel_size=2",),
        "verify": "sample, with torch 2.13.0",
        "machine": Machine(
            "loadbox",
            "AMD EPYC 9454P 48-Core Processor",
            16,
            67_430_010_880,
            "Linux 6.12.9",
            {"layerwire": "0.1.0", "python": "3.11.2", "grpcio": "1.85.1", "torch": "2.13.0"},
        ),
        "servers": tuple(ServerInfo(target, facts) for target in targets if target != LOCAL),
        "points": points,
    }
    return Run(**(values | more))


def sweep() -> Run:
    """One target, seven concurrencies."""
    loads = [Load("closed", callers=2**power) for power in range(7)]
    points = [point(STREAM, load, 7 * index, 1) for index, load in enumerate(loads)]
    return run("sweep", "127.0.0.1:50051 max_pool2d --shape 1,3,32,32 --concurrency 1:64:x2 --html page.html", points)


def rates() -> Run:
    """One target, an open loop that it can't keep up with in the end."""
    loads = [Load("poisson", rate=rate) for rate in (500.0, 1_000.0, 2_000.0, 4_000.0, 8_000.0, 16_000.0)]
    points = [point(STREAM, load, 7 * index, 2) for index, load in enumerate(loads)]
    return run("sweep", "127.0.0.1:50051 max_pool2d --shape 1,3,32,32 --rate 500:16000:x2", points)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _ratio(points: list[Point], target: str, load: Load) -> Ratio:
    def found(name: str, of: str) -> list[float]:
        chosen = [point for point in points if (point.target, point.load) == (of, load)]
        return [getattr(point if name == "throughput" else point.latency, name) for point in chosen]

    values: list[float] = []
    for name in ("throughput", "p50_seconds", "p99_seconds"):
        ours, theirs = found(name, target), found(name, STREAM)
        each = [our / their for our, their in zip(ours, theirs, strict=True)]
        values += [_median(ours) / _median(theirs), min(each), max(each)]
    return Ratio(target, STREAM, load, len(found("throughput", target)), *values)


def comparison(callers: tuple[int, ...] = (16,), rounds: int = 5) -> Run:
    """Three targets, round by round."""
    order = [
        (target, Load("closed", callers=count), turn)
        for count in callers
        for turn in range(1, rounds + 1)
        for target in (STREAM, UNARY, LOCAL)
    ]
    points = [point(target, load, 6.6 * at, at, turn) for at, (target, load, turn) in enumerate(order)]
    ratios = tuple(
        _ratio(points, target, Load("closed", callers=count)) for count in callers for target in (UNARY, LOCAL)
    )
    command = "127.0.0.1:50051 max_pool2d --shape 1,3,32,32 --concurrency 16 --compare unary --compare local"
    return run("comparison", command, points, ratios=ratios)


def search() -> Run:
    """The highest rate whose p99 stays under 5 ms."""
    points, trials = [], []
    for index, rate in enumerate((1_000.0, 2_000.0, 4_000.0, 8_000.0, 16_000.0, 11_314.0, 13_454.0, 12_338.0)):
        found = point(STREAM, Load("poisson", rate=rate), 7 * index, 3)
        kept = found.latency.p99_seconds <= 5e-3 and found.throughput > 0.97 * rate
        reason = None if kept else "p99 was above 5 ms" if rate < 13_300 else "calls were answered at a lower rate"
        points.append(found)
        trials.append(Trial(index, rate, kept, reason))
    best = max(trial.rate for trial in trials if trial.kept)
    failed = min(trial.rate for trial in trials if not trial.kept)
    return run(
        "search",
        "127.0.0.1:50051 max_pool2d --shape 1,3,32,32 --slo 5ms",
        points,
        search=Search(99.0, 5e-3, best, failed, tuple(trials)),
    )


NAMES = ("max_pool2d", "avg_pool2d", "relu", "gelu", "softmax", "layer_norm", "conv2d", "linear", "batch_norm")
SHAPES = ("(1,3,32,32)", "(1,64,56,56)", "(8,128)")


def mix() -> Run:
    """Twelve parts, three loads."""
    names = [f"{name} {SHAPES[index % 3]}" for index, name in enumerate(NAMES)]
    names += ["run digits (1,1,28,28)", "run digits (8,1,28,28)", "cross_entropy (32,10)"]
    points = []
    for index, callers in enumerate((4, 16, 64)):
        whole = point(STREAM, Load("closed", callers=callers), 7 * index, 4)
        parts = []
        for place, name in enumerate(names):
            chance = random.Random(f"{name} {callers}")
            calls = whole.calls * (place + 1) // 78
            spread = latency(whole.latency.mean_seconds * chance.uniform(0.7, 1.9), chance)
            parts.append(Part(name, calls, calls / whole.seconds, {}, wrong=0, latency=spread))
        points.append(replace(whole, parts=tuple(parts)))
    workload = tuple(f"{name} float32, weight {place + 1}" for place, name in enumerate(names))
    return run("sweep", "127.0.0.1:50051 mix mix.toml --concurrency 4:64:x4", points, workload=workload)


def single() -> Run:
    """One target, one load."""
    return run(
        "sweep",
        "127.0.0.1:50051 max_pool2d --shape 1,3,32,32 --concurrency 8",
        [point(STREAM, Load("closed", callers=8), 0, 5)],
    )


def broken() -> Run:
    """Ended by Ctrl-C in its fourth load, after errors and wrong answers; the client was too slow as well."""
    whole = sweep()
    points = list(whole.points[:4])
    wrong, errors = (0, 0, 11, 26), ({}, {"UNAVAILABLE": 3}, {}, {"UNAVAILABLE": 512, "DEADLINE_EXCEEDED": 48})
    for index, found in enumerate(points):
        points[index] = replace(
            found,
            steady=index < 2,
            wrong=wrong[index],
            first_wrong="output[0, 1, 3, 3] is 0.25, should be 0.5 (rtol 1e-05)" if wrong[index] else None,
            errors=errors[index],
            first_error="UNAVAILABLE: failed to connect to all addresses" if errors[index] else None,
            windows=tuple(
                replace(
                    window,
                    wrong=wrong[index] // 5 if window.measured and at % 2 else 0,
                    errors={name: count // 4 for name, count in errors[index].items()} if at > 5 else {},
                )
                for at, window in enumerate(found.windows)
            ),
        )
    last = points[-1]
    slow = "one client process used 97 % of a core"
    points[-1] = replace(
        last,
        unfinished=8,
        windows=last.windows[:9],
        seconds=6 * WINDOW_SECONDS,
        client=replace(last.client, busiest_cpu_ratio=0.97, bottleneck=slow),
    )
    notes = (f"The client was the bottleneck at 8 callers: {slow}.",)
    return replace(whole, points=tuple(points), notes=notes, interrupted=True)


def hopeless() -> Run:
    """No call succeeded."""
    found = point(STREAM, Load("closed", callers=8), 0, 6)
    empty = tuple(
        replace(window, calls=0, throughput=0.0, p50_seconds=None, p99_seconds=None, errors={"UNAVAILABLE": 40})
        for window in found.windows
    )
    nothing = replace(
        found,
        calls=0,
        throughput=0.0,
        latency=None,
        errors={"UNAVAILABLE": 400},
        first_error="UNAVAILABLE: connection refused",
        verified=0,
        windows=empty,
        parts=(Part(BELL, 0, 0.0, {"UNAVAILABLE": 400}, wrong=0, latency=None),),
        client=replace(found.client, cpu_seconds_per_call=None, machine_busy_ratio=None),
        server=None,
    )
    return run("sweep", "127.0.0.1:50051 max_pool2d --shape 1,3,32,32", [nothing], failure="the server went away")


def nothing() -> Run:
    """Ended before anything was measured."""
    return run("sweep", "127.0.0.1:50051 relu --shape 4", [], interrupted=True, notes=("Ended before measuring.",))


# What users and servers may call things.
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=https://example.com/x.png onerror=alert(1)>',
    r"$\frac{1}{0}$ $\undefined$",
    "_hidden]]> --><svg/onload=alert(2)>&amp;{{ 7 * 7 }}{% raw %}",
    "[bold red]rich[/] \x1b[31mescape\x00 \u202eright to left, \ud800 \n\nlines",
    "漢字 🚀 " + "long" * 60,
)


ATTACK = "".join(HOSTILE)


def _hostile_point(found: Point, target: str) -> Point:
    server = found.server and replace(
        found.server,
        source=ATTACK,
        note=ATTACK,
        batch_closed={ATTACK: 5.0},
        rejected={ATTACK: 2.0},
        cpu_seconds={ATTACK: 1.0},
    )
    return replace(
        found,
        target=target,
        errors=dict.fromkeys(HOSTILE, 3),
        first_error=ATTACK,
        wrong=1,
        first_wrong=ATTACK,
        windows=tuple(replace(window, errors=dict.fromkeys(HOSTILE, 1)) for window in found.windows),
        parts=tuple(replace(found.parts[0], name=name, errors={name: 1}) for name in HOSTILE),
        client=replace(found.client, bottleneck=ATTACK),
        server=server,
    )


def hostile() -> Run:
    """A comparison whose every name, text and fact is an attack."""
    whole = comparison((4, 16), 2)
    names = dict(zip((STREAM, UNARY, LOCAL), HOSTILE, strict=False))
    return replace(
        whole,
        command=ATTACK,
        workload=HOSTILE,
        verify=ATTACK,
        machine=Machine(ATTACK, ATTACK, 2, None, ATTACK, {ATTACK: ATTACK}),
        servers=(ServerInfo(ATTACK, {ATTACK: ATTACK}),),
        points=tuple(_hostile_point(found, names[found.target]) for found in whole.points),
        ratios=tuple(replace(each, target=names[each.target], baseline=names[each.baseline]) for each in whole.ratios),
        notes=HOSTILE,
        failure=ATTACK,
    )


EVERY = {
    "sweep": sweep,
    "rates": rates,
    "comparison": comparison,
    "comparison-of-loads": lambda: comparison((1, 4, 16, 64), 3),
    "search": search,
    "mix": mix,
    "single": single,
    "broken": broken,
    "hopeless": hopeless,
    "nothing": nothing,
    "hostile": hostile,
}
