"""Runs the standing comparisons and prints a table: `python -m tests.benchmarks`."""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from tests.benchmarks import footprint, sides

# comparison -> (operator, side -> (server, way to call it)); the first side is what the others are compared with
COMPARISONS: dict[str, tuple[str, dict[str, tuple[tuple[str, ...], Any]]]] = {
    "relu (1,10)": (
        "relu",
        {
            "bare grpc.aio": (sides.BARE, sides.unary),
            "stream": (sides.LAYERWIRE, sides.stream),
            "unary": (sides.LAYERWIRE, sides.unary),
        },
    ),
    "linear 512 to 512, named weights": (
        "linear",
        {
            "bare grpc.aio": (sides.BARE, sides.unary),
            "stream": (sides.LAYERWIRE, sides.stream),
            "stream, deterministic": (sides.LAYERWIRE, sides.deterministic),
        },
    ),
    "LeNet on (1,3,32,32)": (
        "network",
        {
            "bare grpc.aio, torch module": (sides.BARE, sides.unary),
            "program, stream": (sides.LAYERWIRE, sides.program),
            "program, unary": (sides.LAYERWIRE, sides.unary),
            "layer by layer, stream": (sides.LAYERWIRE, sides.layers),
        },
    ),
}


async def _round(servers: dict[Any, str], operator: str, ways: dict[str, Any], callers: int, seconds: float) -> Any:
    figures = {}
    for name, (command, way) in ways.items():
        async with way(servers[command], operator) as call:
            await sides.rate(call, callers, 0.3)
            figures[name] = await sides.rate(call, callers, seconds)
    return figures


def _print(title: str, callers: int, rounds: list[Any]) -> None:
    table = Table(
        "side", "calls/s, median", "least", "most", "p50 ms", "p99 ms", "ratio", title=f"{title}, {callers} callers"
    )
    first = statistics.median(figures[next(iter(figures))][0] for figures in rounds)
    for name in rounds[0]:
        rates = [figures[name][0] for figures in rounds]
        latencies = np.concatenate([figures[name][1] for figures in rounds]) * 1e3
        median = statistics.median(rates)
        table.add_row(
            name, f"{median:,.0f}", f"{min(rates):,.0f}", f"{max(rates):,.0f}", f"{np.percentile(latencies, 50):.2f}",
            f"{np.percentile(latencies, 99):.2f}", f"{median / first:.2f}",
        )  # fmt: skip
    Console(width=110).print(table)


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=5, help="Rounds; in each, every side runs once.")
@click.option("--seconds", default=2.0, help="Length of a side's run.")
@click.option("--callers", default=32, help="Callers that each wait for their answer.")
@click.option("--only", default="", help="Run comparisons whose name has this in it.")
def main(rounds: int, seconds: float, callers: int, only: str) -> None:
    """Compares Layerwire with a bare grpc.aio server; client and servers share this machine's cores."""
    if not only or only in "footprint":
        footprint.show(rounds)
    with sides.server(*sides.BARE) as bare, sides.server(*sides.LAYERWIRE) as ours:
        servers = {sides.BARE: bare, sides.LAYERWIRE: ours}
        for title, (operator, ways) in COMPARISONS.items():
            if only in title:
                figures = [asyncio.run(_round(servers, operator, ways, callers, seconds)) for _ in range(rounds)]
                _print(title, callers, figures)


if __name__ == "__main__":
    main()
