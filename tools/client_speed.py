"""How many small calls a second the SDK makes against a server that does next to nothing, and the CPU that each costs.

python -m tools.client_speed [callers] [seconds]
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

import layerwire

ROUNDS = 3
ROW = np.linspace(-1, 1, 10, dtype=np.float32).reshape(1, 10)


async def tasks(address: str, callers: int, seconds: float) -> float:
    async with layerwire.AsyncClient(address) as lw:
        await lw.relu(ROW)
        calls = 0
        end = time.perf_counter() + seconds

        async def caller() -> None:
            nonlocal calls
            while time.perf_counter() < end:
                await lw.relu(ROW)
                calls += 1

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return calls / (time.perf_counter() - start)


def threads(address: str, callers: int, seconds: float) -> float:
    with layerwire.Client(address) as lw:
        lw.relu(ROW)
        counts = [0] * callers
        end = time.perf_counter() + seconds

        def caller(index: int) -> None:
            while time.perf_counter() < end:
                lw.relu(ROW)
                counts[index] += 1

        start = time.perf_counter()
        running = [threading.Thread(target=caller, args=(index,)) for index in range(callers)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return sum(counts) / (time.perf_counter() - start)


def futures(address: str, callers: int, seconds: float) -> float:
    with layerwire.Client(address) as lw:
        lw.relu(ROW)
        calls = 0
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            for future in [lw.submit.relu(ROW) for _ in range(1000)]:
                future.result()
            calls += 1000
        return calls / (time.perf_counter() - start)


def arrays(address: str, callers: int, seconds: float) -> float:
    """So many arrays as there are callers at once."""
    with layerwire.Client(address) as lw:
        relu = lw.map.relu  # type: ignore[attr-defined]  # not in every checkout that this tool compares
        calls, rows = 0, [ROW] * callers
        relu(rows)
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            relu(rows)
            calls += callers
        return calls / (time.perf_counter() - start)


def measure(way: Callable[[], float]) -> tuple[float, float]:
    """Calls a second, and microseconds of this process's processor time a call, starting and stopping counted."""
    start, cpu = time.perf_counter(), time.process_time()
    rate = way()
    return rate, (time.process_time() - cpu) / (rate * (time.perf_counter() - start)) * 1e6


def main() -> None:
    callers = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.transport.fake_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    address = server.stdout.readline().strip()
    ways: dict[str, Callable[[], float]] = {
        "tasks": lambda: asyncio.run(tasks(address, callers, seconds)),
        "threads": lambda: threads(address, callers, seconds),
        "futures": lambda: futures(address, callers, seconds),
    }
    with layerwire.Client(address) as lw:
        if hasattr(lw, "map"):
            ways["arrays"] = lambda: arrays(address, callers, seconds)
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            figures[name].append(measure(ways[name]))
    for name, rounds in figures.items():
        rates, costs = zip(*rounds, strict=True)
        spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
        print(f"{name:8} {callers:4} callers {statistics.median(rates):9,.0f} calls/s ({spread})"
              f" {statistics.median(costs):6.1f} us of processor a call")  # fmt: skip
    server.communicate("\n")


if __name__ == "__main__":
    main()
