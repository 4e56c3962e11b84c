"""Measures growth and writes pictures, figures and what they show: `python -m tools.growth`, or `make bench-growth`."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from layerwire_bench.machine import machine
from tools.benchmarks import tables
from tools.benchmarks.processes import Neighbours
from tools.benchmarks.servers import ROOT, tree_of
from tools.growth.curve import Growth, Point, cliffs, from_best
from tools.growth.measurements import GROWTHS
from tools.growth.picture import draw

HEAD = """# Growth

What `make bench-growth` measured: each point is the median over rounds, in each of which every curve has its turn, so
that one busy moment makes no cliff. A cliff is a step at which throughput or latency worsens by more than what grew
explains, and half as much again for the noise of a shared machine.
"""


def watch(sentence: str) -> None:
    """Tells whoever waits."""
    click.echo(f"{time.strftime('%H:%M:%S')} {sentence}", err=True)


def medians(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Of several curves over the same sizes."""
    return [
        Point(points[0].size, *(statistics.median(values) for values in list(zip(*points, strict=True))[1:]))
        for points in zip(*curves, strict=True)
    ]


def section(growth: Growth, points: Sequence[Point]) -> tuple[str, bool]:
    """What stands in the page about a growth, and whether it has a cliff."""
    found = cliffs(growth, points)
    slope = from_best(growth, points)
    if slope is not None and not found:
        found = [slope]
    rows = [(f"{point.size:,.0f}", f"{point.throughput:,.4g}", f"{point.p50_seconds * 1e3:.3g}") for point in points]
    words = "No cliff." if not found else "A cliff: " + "; ".join(found) + "."
    heads = (growth.axis, growth.unit, "p50 ms")
    title = f"## {growth.axis[0].upper()}{growth.axis[1:]}: {growth.title}"
    image = f"![{growth.title}]({growth.name}.png)"
    return "\n\n".join([title, words, image, tables.table(heads, rows)]), bool(found)


@click.command(context_settings={"show_default": True})
@click.option("--only", default="", help=f"What has this in its name; they are {', '.join(GROWTHS)}.")
@click.option("--rounds", default=3, type=click.IntRange(1), help="Rounds; in each, every curve is measured once.")
@click.option("--seconds", default=0.5, type=click.FloatRange(0.5), help="Length of a measurement.")
@click.option("--tree", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="The server of another checkout.")  # fmt: skip
@click.option("--out", default=ROOT / "docs" / "growth", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of pictures, figures and the page.")  # fmt: skip
def main(only: str, rounds: int, seconds: float, directory: Path | None, out: Path) -> None:
    """Measures how speed changes as callers, bytes, lanes, parameters, gateways and workers grow."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    names = [name for name in GROWTHS if only in name]
    if not names:
        raise click.UsageError(f"nothing has {only!r} in its name; they are {', '.join(GROWTHS)}")
    tree = tree_of(directory)
    out.mkdir(parents=True, exist_ok=True)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    head = f"Measured on {today} by `python -m tools.growth`: {tables.machine(machine())}"
    busy = f"Load average before: {os.getloadavg()[0]:.1f}."
    file = out / "growth.json"
    figures = json.loads(file.read_text()) if file.exists() else {}
    curves: dict[str, list[list[Point]]] = {name: [] for name in names}
    shares: dict[str, list[float]] = {name: [] for name in names}  # of the cores, that others used meanwhile
    for number in range(1, rounds + 1):
        for name in names:
            growth, measure = GROWTHS[name]
            curve: list[Point] = []
            neighbours = Neighbours()
            for point in measure(tree, seconds):
                curve.append(point)
                watch(f"{name}, round {number} of {rounds}: {point.size:,.0f}: {point.throughput:,.4g} {growth.unit}")
            curves[name].append(curve)
            shares[name] += [] if (share := neighbours.ratio()) is None else [share]
            meanwhile = f" Others used {max(shares[name]):.0%} of the cores at most." if shares[name] else ""
            points = medians(curves[name])
            figures[name] = {"head": f"{head} {busy}{meanwhile}", "points": points, "rounds": curves[name]}
            file.write_text(json.dumps(figures, indent=1))
            write_page(out, figures)


def write_page(out: Path, figures: dict[str, dict[str, list[list[float]]]]) -> None:
    """The page and its pictures, of all that is in the folder's figures."""
    parts = [HEAD]
    for name, (growth, _) in GROWTHS.items():
        if name in figures:
            points = [Point(*point) for point in figures[name]["points"]]
            text, has_cliff = section(growth, points)
            draw(growth, points, has_cliff, out / f"{name}.png")
            parts.append(f"{text}\n\n{figures[name]['head']}\n")
    (out / "README.md").write_text("\n".join(parts))


if __name__ == "__main__":
    main()
