"""Compares this checkout with another, each on its own Python: `python -m tools.comparison DIR`.

Three sides take turns, there and back: this client on this server; this client on the other's, which compares servers;
the other's client on the other's server, which compares what applications get. It knows the command line of both
checkouts and none of their modules; DIR/.venv has the other one installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from layerwire_bench.machine import machine
from tools.benchmarks import footprint, loads, tables
from tools.benchmarks.loads import LOADS
from tools.benchmarks.servers import LAYERWIRE, THIS, Tree, server

LIMIT_SECONDS = 120.0  # of one turn, beside what is measured


@dataclass
class Side:
    """A client and a server, and the calls per second that each turn of a load gave.

    Attributes:
        title: who calls whom.
        client: the checkout whose load tester calls.
        address: of the server.
    """

    title: str
    client: Tree
    address: str
    rates: dict[str, list[float]] = field(default_factory=dict)

    def turn(self, load: str, callers: int, seconds: float) -> None:
        """Measures a load once more.

        Raises:
            RuntimeError: the load tester failed, or found calls that failed or answers that are wrong.
        """
        words = LOADS[load].split()
        if "--concurrency" not in words:
            words += ["--concurrency", str(callers)]
        pace = ["--warmup", "500ms", "--window", "500ms", "--duration", f"{seconds}s", "--json", "-"]
        run = subprocess.run(
            self.client.command("layerwire.cli", "bench", self.address, *words, *pace), cwd=self.client.root,
            env=self.client.environment(), capture_output=True, text=True, timeout=seconds + LIMIT_SECONDS,
        )  # fmt: skip
        if run.returncode != 0:
            raise RuntimeError(f"{self.title}, {load}: exit status {run.returncode}\n{run.stderr}")
        (point,) = json.loads(run.stdout)["points"]
        self.rates.setdefault(load, []).append(point["throughput"])


def require_own_layerwire(tree: Tree) -> None:
    """Refuses a checkout whose Python would run another one's code.

    Raises:
        click.UsageError: it has no Python of its own, or its layerwire lies elsewhere.
    """
    if not Path(tree.python).exists():
        raise click.UsageError(f"{tree.root}: needs its own .venv, as `make install` there makes it")
    where = subprocess.run(
        [tree.python, "-c", "import layerwire; print(layerwire.__file__)"], cwd=tree.root, env=tree.environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    if not Path(where.stdout.strip()).is_relative_to(tree.root):
        raise click.UsageError(f"{tree.python}: must have the layerwire of {tree.root}, got {where.stdout.strip()!r}")


@contextlib.contextmanager
def sides(other: Tree) -> Iterator[list[Side]]:
    """All three, with both servers running and holding the same weights and program."""
    with server(*LAYERWIRE) as mine, server(*LAYERWIRE, tree=other) as theirs:
        for one in (mine, theirs):
            loads.prepare(one.address)
        yield [
            Side("this client, this server", THIS, mine.address),
            Side("this client, other server", THIS, theirs.address),
            Side("other client, other server", other, theirs.address),
        ]


def table(first: Side, second: Side) -> str:
    """Medians of both with least and most, the ratio of medians, and least and most of the rounds' own ratios."""
    rows = []
    for load in first.rates:
        here, there = first.rates[load], second.rates[load]
        ratios = [one / another for one, another in zip(here, there, strict=True)]
        rows.append((load, _spread(here), _spread(there), f"{_ratio(first, second, load):.3f}",
                     f"{min(ratios):.3f}", f"{max(ratios):.3f}"))  # fmt: skip
    heads = ("calls/s, median (least to most)", first.title, second.title, "ratio", "least", "most")
    return tables.table(heads, rows)


def footprints(trees: list[Tree], rounds: int) -> str:
    """Seconds to ready and resident memory of idle servers, started in turn."""
    starts: list[list[tuple[float, float]]] = [[] for _ in trees]
    for _ in range(rounds):
        for tree, figures in zip(trees, starts, strict=True):
            seconds, memory = footprint.measure(tree)
            figures.append((seconds, sum(memory.values())))
    columns = [list(zip(*each, strict=True)) for each in starts]
    rows = [(title, *(_spread(column[index]) for column in columns))
            for index, title in enumerate(("seconds to ready", "resident MiB"))]  # fmt: skip
    return tables.table(("idle server, median (least to most)", "this", "other"), rows)


def _spread(figures: Sequence[float]) -> str:
    return f"{statistics.median(figures):,.1f} ({min(figures):,.1f} to {max(figures):,.1f})"


def _ratio(first: Side, second: Side, load: str) -> float:
    return statistics.median(first.rates[load]) / statistics.median(second.rates[load])


@click.command(context_settings={"show_default": True})
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--rounds", default=7, type=click.IntRange(1), help="Rounds; in each, every side has its turn.")
@click.option("--seconds", default=3.0, type=click.FloatRange(0.5), help="Length of a turn.")
@click.option("--callers", default=32, type=click.IntRange(1), help="Callers that each wait for their answer.")
@click.option("--only", default="", help="Loads that have this in their title.")
@click.option("--least", default=0.97, help="Exit status 1 where a ratio of medians is below this.")
def main(directory: Path, rounds: int, seconds: float, callers: int, only: str, least: float) -> None:
    """Measures this checkout against the one in DIR, whose .venv has it installed; all share this machine's cores."""
    titles = [load for load in LOADS if only in load]
    if not titles:
        raise click.UsageError(f"no load has {only!r} in its title; they are {', '.join(LOADS)}")
    trees = [THIS, Tree(directory.resolve(), str(directory.resolve() / ".venv/bin/python"))]
    for tree in trees:
        require_own_layerwire(tree)
    click.echo(f"{tables.machine(machine())} Load average before: {os.getloadavg()[0]:.1f}.")
    with sides(trees[1]) as all_sides:
        for load in titles:
            for number in range(rounds):
                for side in all_sides[:: -1 if number % 2 else 1]:
                    side.turn(load, callers, seconds)
            this, *others = all_sides
            click.echo(f"{load}: {', '.join(f'{_ratio(this, other, load):.3f}' for other in others)}", err=True)
    for title, other in zip(("Servers, with this client", "Each with its own client"), others, strict=True):
        click.echo(f"\n{title}:\n\n{table(this, other)}")
    if not only:
        click.echo(f"\nServers at rest:\n\n{footprints(trees, rounds)}")
    slower = [f"{load}, {other.title}: {ratio:.3f}" for other in others for load in titles
              if (ratio := _ratio(this, other, load)) < least]  # fmt: skip
    click.echo(f"\nBelow {least:g}: {'; '.join(slower) or 'none'}.")
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    main()
