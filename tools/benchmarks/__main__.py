"""Runs the standing set and rewrites BENCHMARKS.md: `python -m tools.benchmarks`, or `make bench`."""

from __future__ import annotations

import datetime as dt
import os
import shlex
import sys
from pathlib import Path

import click

from layerwire_bench.machine import machine
from tools.benchmarks import chain, footprint, measurement, servers, tables, upload
from tools.benchmarks.comparisons import COMPARISONS

FILE = Path(__file__).parents[2] / "BENCHMARKS.md"
START, END = "<!-- figures -->\n", "<!-- /figures -->\n"
SEARCHED, BOUND_SECONDS = COMPARISONS[0], 0.02
SEARCH_TARGETS = ("bare", "stream", "unary")


def sections(rounds: int, seconds: float, callers: int, only: str) -> list[str]:
    """Each part of the file that was asked for, measured."""
    parts = []
    if only in "footprint":
        parts.append(footprint.report(rounds))
    with servers.both() as addresses:
        for comparison in COMPARISONS:
            if only in comparison.title:
                run = measurement.compare(comparison, addresses, comparison.callers or callers, rounds, seconds)
                parts.append(tables.comparison(comparison.title, run, comparison.targets, comparison.least_ratio))
        if only in "search":
            runs = {name: measurement.search(SEARCHED, addresses, name, BOUND_SECONDS) for name in SEARCH_TARGETS}
            parts.append(tables.searches(SEARCHED.title, BOUND_SECONDS, runs))
        if only in "layer by layer":
            parts.append(chain.report(addresses.layerwire, callers, rounds, seconds))
        if only in "upload":
            parts.append(upload.report(addresses.layerwire, 3, 1 << 30))
    return parts


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=5, help="Rounds; in each, every target has its turn.")
@click.option("--seconds", default=2.0, help="Length of a target's turn.")
@click.option("--callers", default=32, help="Callers that each wait for their answer.")
@click.option("--only", default="", help="Print what has this in its title; nothing is written.")
def main(rounds: int, seconds: float, callers: int, only: str) -> None:
    """Compares Layerwire with a bare grpc.aio server and with torch alone; all share this machine's cores."""
    if rounds < 1 or seconds <= 0 or callers < 1:
        raise click.UsageError("--rounds, --seconds and --callers must be above 0")
    busy = os.getloadavg()[0]
    parts = sections(rounds, seconds, callers, only)
    if not parts:
        raise click.UsageError(f"nothing has {only!r} in its title")
    command = " ".join(["python -m tools.benchmarks", *map(shlex.quote, sys.argv[1:])])
    today = dt.datetime.now(dt.UTC).date().isoformat()
    head = [f"Measured on {today} by `{command}`: {tables.machine(machine())}", f"Load average before: {busy:.1f}."]
    text = "\n".join(head) + "\n\n" + "\n\n".join(parts) + "\n"
    click.echo(text)
    if not only:
        before, rest = FILE.read_text().split(START)
        FILE.write_text(f"{before}{START}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
