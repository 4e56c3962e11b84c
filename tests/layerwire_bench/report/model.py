"""A small model of a batching server under load: points whose figures hang together, to show.

It knows what a point is; nothing of how one is measured or shown.
"""

from __future__ import annotations

import random

from layerwire_bench.result import Client, Latency, Load, Part, Phase, Point, Server, Window

STREAM, UNARY, LOCAL = "stream@127.0.0.1:50051", "unary@127.0.0.1:50051", "local"
WARM_UP, MEASURED, WINDOW_SECONDS = 3, 10, 0.5
# Of a target: seconds of a call alone, calls per second at most, processor seconds of the client for a call.
COSTS = {STREAM: (0.41e-3, 13_400.0, 38e-6), UNARY: (0.62e-3, 5_900.0, 121e-6), LOCAL: (0.11e-3, 9_800.0, 96e-6)}
BELL = "max_pool2d (1,3,32,32)"


def latency(mean: float, chance: random.Random) -> Latency:
    """Percentiles of a skewed distribution of that mean."""
    shares = (0.52, 0.93, 1.42, 1.66, 2.35, 4.1, 7.3)
    least, p50, p90, p95, p99, p999, most = (share * mean * chance.uniform(0.97, 1.03) for share in shares)
    return Latency(mean, 0.4 * mean, least, p50, p90, p95, p99, p999, most)


def windows(start: float, throughput: float, spread: Latency | None, chance: random.Random) -> tuple[Window, ...]:
    """Warm-up, then what was measured."""
    made = []
    for index in range(WARM_UP + MEASURED):
        share = chance.uniform(0.97, 1.03) * (1 - 0.3 * 0.4**index)
        calls = round(throughput * share * WINDOW_SECONDS)
        p50, p99 = (None, None) if spread is None else (spread.p50_seconds / share, spread.p99_seconds / share**2)
        at = start + index * WINDOW_SECONDS
        rate = calls / WINDOW_SECONDS
        made.append(Window(at, WINDOW_SECONDS, calls, rate, p50, p99, {}, 0, measured=index >= WARM_UP))
    return tuple(made)


def server(mean: float, throughput: float, company: float, chance: random.Random) -> Server:
    """What the server counted while its calls took that long at the client."""
    busy = min(1.0, throughput / 13_400)
    queue = mean * (0.06 + 0.62 * busy**3)
    kernel, copy = 0.09 * mean + 31e-6, 0.02 * mean + 4e-6
    calls = throughput * MEASURED * WINDOW_SECONDS
    rows = max(1.0, 0.45 * company * chance.uniform(0.95, 1.05))
    return Server(
        source="/metrics of 127.0.0.1:9464",
        calls=calls,
        queue=Phase(queue, 0.9 * queue, 2.6 * queue),
        copy_in=Phase(copy),
        kernel=Phase(kernel, 0.95 * kernel, 1.4 * kernel),
        copy_out=Phase(0.7 * copy),
        batch_calls=rows,
        batch_rows=rows,
        batch_closed={"idle": 0.8 * calls / rows, "rows": 0.2 * calls / rows},
        rejected={},
        cpu_seconds={"gateway-0": calls * 41e-6, "worker-0": calls * (22e-6 + 30e-6 / rows)},
    )


def point(target: str, load: Load, start: float, seed: int, round: int = 0) -> Point:
    """A target under a load. In an open loop calls wait longer the nearer the rate is to what the target can do."""
    chance = random.Random(f"{target} {load} {seed}")
    alone, most, cost = COSTS[target]
    if load.callers:
        throughput = ((alone / load.callers) ** 4 + most**-4) ** -0.25
        mean = load.callers / throughput
    else:
        throughput = min(load.rate, most)
        mean = alone * (0.8 + 0.2 / (1 - min(load.rate / most, 0.97)))
    throughput *= chance.uniform(0.98, 1.02)
    spread = latency(mean, chance)
    seconds = MEASURED * WINDOW_SECONDS
    calls = int(throughput * seconds)
    cpu = calls * cost
    return Point(
        target=target,
        load=load,
        start_seconds=start + WARM_UP * WINDOW_SECONDS,
        seconds=seconds,
        steady=True,
        calls=calls,
        throughput=calls / seconds,
        latency=spread,
        errors={},
        first_error=None,
        verified=calls // 50,
        wrong=0,
        first_wrong=None,
        unfinished=0,
        windows=windows(start, throughput, spread, chance),
        parts=(Part(BELL, calls, calls / seconds, {}, wrong=0, latency=spread),),
        client=Client(1, cpu, min(1.0, cpu / seconds), cost, 0.2e-3, None if load.callers else 0.1e-3, 0.71, None),
        server=None if target == LOCAL else server(mean, throughput, throughput * mean, chance),
        round=round,
    )
