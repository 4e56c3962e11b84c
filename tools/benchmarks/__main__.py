"""Measures what must be reached and rewrites BENCHMARKS.md: `python -m tools.benchmarks`, or `make bench`."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeAlias

import click

from layerwire.errors import LayerwireError
from layerwire_bench.calling.processes import ClientProcessError
from layerwire_bench.machine import machine
from layerwire_bench.measuring.measurement import EarlyEndError
from tools.benchmarks import arrivals, chain, driver, footprint, lines, loads, same_host, servers, tables, upload
from tools.benchmarks.contenders import WrongAnswerError
from tools.benchmarks.driver import DriverError
from tools.benchmarks.peers import launch
from tools.benchmarks.results import Result
from tools.benchmarks.servers import Tree

FILE = Path(__file__).parents[2] / "BENCHMARKS.md"
START, END = "<!-- figures -->\n", "<!-- /figures -->\n"
FAILURES = (RuntimeError, OSError, DriverError, WrongAnswerError, EarlyEndError, ClientProcessError, LayerwireError)
CHAIN_TITLE, UPLOAD_TITLE, FOOTPRINT_TITLE = "LeNet layer by layer", "upload of weights", "idle server"


def watch(sentence: str) -> None:
    """Tells whoever waits."""
    click.echo(f"{time.strftime('%H:%M:%S')} {sentence}", err=True)


Part: TypeAlias = Callable[[servers.Server, servers.Server, servers.Server | None], Iterator[Result]]


def results(other: Tree | None, only: str, count: int, seconds: float, failures: list[str]) -> Iterator[Result]:
    """What was asked for, measured; a part that fails is named in `failures`, and the others go on.

    Another checkout's server takes turns with this one's in the lines of a function; the other parts are this one's.
    """
    parts: list[tuple[str, Part]] = [
        (line.title, partial(lines.measure, line, count=count, seconds=seconds, watch=watch)) for line in lines.LINES
    ]
    if other is None:
        parts += [
            (same_host.TITLE, lambda ours, *_: iter([same_host.measure(ours, count, seconds, watch)])),
            (arrivals.SEARCH_TITLE, lambda ours, bare, _: iter([arrivals.search(ours, bare, watch)])),
            (arrivals.OVERLOAD_TITLE, lambda *_: iter([arrivals.overload(count, seconds, watch)])),
        ]
    parts = [part for part in parts if only in part[0]]
    if not parts:
        return
    with contextlib.ExitStack() as stack:
        trees = [servers.THIS] if other is None else [servers.THIS, other]
        bare = stack.enter_context(servers.server(*servers.BARE))
        ours, *others = (stack.enter_context(servers.server(*servers.LAYERWIRE, tree=tree)) for tree in trees)
        for one in (ours, *others):
            loads.prepare(one.address)
        for title, measure in parts:
            try:
                yield from measure(ours, bare, others[0] if others else None)
            except FAILURES as error:
                failures.append(f"{title}: {type(error).__name__}: {error}")
                watch(failures[-1])


def texts(only: str, rounds: int, seconds: float) -> Iterator[str]:
    """Tables of what is no comparison of servers."""
    if only in FOOTPRINT_TITLE:
        yield footprint.report(rounds)
    if only in CHAIN_TITLE or only in UPLOAD_TITLE:
        with servers.server(*servers.LAYERWIRE) as ours:
            if only in CHAIN_TITLE:
                yield chain.report(ours.address, 32, rounds, seconds)
            if only in UPLOAD_TITLE:
                yield upload.report(ours.address, 3, 1 << 30)


def absent() -> list[str]:
    """What isn't there, and why lines are without it."""
    sentences = []
    if not driver.available():
        sentences.append("h2load isn't installed (`make peers`): no peers, and no unary calls by a client in C.")
    if not launch.versions():
        sentences.append(f"No peers in {launch.FOLDER} (`make peers`): nothing is compared with them.")
    return sentences


def head(busy: float) -> list[str]:
    """Where, when and how."""
    command = " ".join(["python -m tools.benchmarks", *map(shlex.quote, sys.argv[1:])])
    today = dt.datetime.now(dt.UTC).date().isoformat()
    peers = ", ".join(f"{name} {version}" for name, version in launch.versions().items())
    return [
        f"Measured on {today} by `{command}`: {tables.machine(machine())}" + (f" Peers: {peers}." if peers else ""),
        f"Load average before: {busy:.1f}.",
        *absent(),
    ]


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=3, type=click.IntRange(1), help="Rounds; in each, every contender has its turn.")
@click.option("--seconds", default=1.0, type=click.FloatRange(0.5), help="Length of a turn.")
@click.option("--only", default="", help="Print what has this in its title; nothing is written.")
@click.option("--tree", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Another checkout, whose server takes turns with this one's; nothing is written.")  # fmt: skip
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Every turn, as JSON.")
def main(rounds: int, seconds: float, only: str, directory: Path | None, file: Path | None) -> None:
    """Compares Layerwire with its peers, a bare grpc.aio server and torch alone; all share this machine's cores."""
    other = None if directory is None else servers.tree_of(directory)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    paragraphs = head(os.getloadavg()[0])
    for sentence in absent():
        watch(sentence)
    failures: list[str] = []
    measured = []
    for result in results(other, only, rounds, seconds, failures):
        measured.append(result)
        if file is not None:  # what was measured stays, whatever becomes of the rest
            found = {"head": paragraphs, "machine": asdict(machine()), "results": [one.json() for one in measured]}
            file.write_text(json.dumps(found, indent=1))
    others = [] if directory is not None else list(texts(only, rounds, seconds))
    if not measured and not others and not failures:
        raise click.UsageError(f"nothing has {only!r} in its title")
    parts = [tables.claims(measured)] if any(result.claims for result in measured) else []
    parts += [f"NOT MEASURED: {failure}" for failure in failures]
    parts += [*map(tables.result, measured), *others]
    text = "\n".join(paragraphs) + "\n\n" + "\n\n".join(parts) + "\n"
    click.echo(text)
    if not only and directory is None:
        before, rest = FILE.read_text().split(START)
        FILE.write_text(f"{before}{START}\n{text}\n{END}{rest.partition(END)[2]}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
