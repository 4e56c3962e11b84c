"""Where a call's processor time goes: `python -m tools.profile`.

For each load: microseconds a call by process, in its own code and in the kernel, and how often its threads waited;
then, where py-spy is installed, the functions that the time went to. It knows `layerwire bench` and /proc; nothing of
what is inside the server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from layerwire_bench.machine import machine
from layerwire_bench.servers import page
from layerwire_bench.servers.exposition import Samples
from tools.benchmarks import loads, processes, tables
from tools.benchmarks.loads import LOADS
from tools.benchmarks.servers import LAYERWIRE, Server, Tree, server, tree_of

LIMIT_SECONDS = 120.0  # of one load, beside what is measured
LOOK_SECONDS = 0.25  # between looks whether a load tester's load is on
BUSY_RATIO = 0.2  # of a core, which a server without a load is far below
HERTZ = 250
HEADS = ("callers", "calls/s", "p50 ms", "process", "us a call", "own code", "kernel", "waits a call")


def spy() -> str | None:
    """py-spy's program: of the variable PY_SPY, this Python's, or the path's."""
    beside = Path(sys.executable).with_name("py-spy")
    return os.environ.get("PY_SPY") or (str(beside) if beside.exists() else shutil.which("py-spy"))


def tester(tree: Tree, target: Server, words: Iterable[str], seconds: float) -> subprocess.Popen[str]:
    """`layerwire bench` of a checkout, under way."""
    pace = ["--warmup", "500ms", "--window", "500ms", "--duration", f"{seconds}s", "--processes", "1", "--json", "-"]
    return subprocess.Popen(
        tree.command("layerwire.cli", "bench", target.address, *words, *pace, "--metrics", target.metrics),
        cwd=tree.root, env=tree.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def point(process: subprocess.Popen[str], seconds: float) -> dict[str, float]:
    """What it measured: throughput, p50 and its own processor seconds a call.

    Raises:
        RuntimeError: it failed, or answers were wrong.
    """
    output, errors = process.communicate(timeout=seconds + LIMIT_SECONDS)
    if process.returncode != 0:
        raise RuntimeError(f"layerwire bench: exit status {process.returncode}\n{errors}")
    (only,) = json.loads(output)["points"]
    client = only["client"]["cpu_seconds_per_call"]
    return {"throughput": only["throughput"], "p50": only["latency"]["p50_seconds"], "client": client}


def calls_total(target: Server) -> float:
    """Calls that the server has answered."""
    return Samples.parse(page.read(target.metrics)).sum("layerwire_calls_total")


def costs(tree: Tree, target: Server, words: list[str], callers: int, seconds: float) -> list[tuple[str, ...]]:
    """Rows of the table: what a call cost each process."""
    pids = processes.descendants(target.pid)
    before, calls = processes.by_role(pids), calls_total(target)
    measured = point(tester(tree, target, [*words, "--concurrency", str(callers)], seconds), seconds)
    time.sleep(1.5)  # counters come to the page with a delay
    used, count = processes.growth(before, processes.by_role(pids)), calls_total(target) - calls
    first = f"{callers}", f"{measured['throughput']:,.0f}", f"{measured['p50'] * 1e3:.3g}"
    rows: list[tuple[str, ...]] = [(*first, "client", f"{measured['client'] * 1e6:.1f}", "", "", "")]
    for name, usage in used.items():
        own, kernel = usage.user_seconds / count * 1e6, usage.system_seconds / count * 1e6
        waits = f"{usage.waits / count:.2f}"
        rows.append(("", "", "", name, f"{usage.seconds / count * 1e6:.1f}", f"{own:.1f}", f"{kernel:.1f}", waits))
    return rows


def functions(raw: str) -> tuple[int, Counter[str], Counter[str]]:
    """Of py-spy's raw stacks: samples, and by function those in it alone and those in it or what it called."""
    total, alone, within = 0, Counter[str](), Counter[str]()
    for line in raw.splitlines():
        stack, _, number = line.rpartition(" ")
        frames, count = stack.split(";"), int(number)
        total += count
        alone[frames[-1]] += count
        for frame in set(frames):
            within[frame] += count
    return total, alone, within


def hot(program: str, pids: dict[str, int], seconds: float, folder: Path, *, native: bool) -> dict[str, str]:
    """py-spy's raw stacks of several processes at once."""
    options = ["--rate", str(HERTZ), "--duration", str(max(1, round(seconds))), "--format", "raw", "--function"]
    if native:
        options.append("--native")
    running = [
        subprocess.Popen(
            [program, "record", *options, "--pid", str(pid), "--output", str(folder / name)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for name, pid in pids.items()
    ]  # fmt: skip
    for process, name in zip(running, pids, strict=True):
        _, errors = process.communicate(timeout=seconds + LIMIT_SECONDS)
        if not (folder / name).exists():
            click.echo(f"py-spy has nothing of {name}: {errors.strip()}", err=True)
    return {name: (folder / name).read_text() for name in pids if (folder / name).exists()}


def await_load(target: Server, bench: subprocess.Popen[str]) -> None:
    """Waits until the server has something to do, or the load tester ends."""
    pids = processes.descendants(target.pid)
    before = sum(processes.usage(pid).seconds for pid in pids)
    while bench.poll() is None:
        time.sleep(LOOK_SECONDS)
        now = sum(processes.usage(pid).seconds for pid in pids)
        if now - before > BUSY_RATIO * LOOK_SECONDS:
            return
        before = now


def client_pid(bench: int) -> int | None:
    """The load tester's client process, which was spawned."""
    for pid in processes.descendants(bench):
        if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    return None


def profile(tree: Tree, target: Server, words: list[str], callers: int, seconds: float, top: int, *, native: bool,
            program: str) -> str:  # fmt: skip
    """The functions that the time went to, by process. Of an event loop, its waits are in what called it."""
    bench = tester(tree, target, [*words, "--concurrency", str(callers)], seconds + 3)
    await_load(target, bench)
    pids = {processes.role(pid): pid for pid in processes.descendants(target.pid)}
    pids.pop("supervisor", None)
    pids |= {} if (client := client_pid(bench.pid)) is None else {"client": client}
    with tempfile.TemporaryDirectory() as folder:
        stacks = hot(program, pids, seconds, Path(folder), native=native)
    point(bench, seconds)
    parts = []
    for name, raw in stacks.items():
        total, alone, within = functions(raw)
        rows = [(f"{alone[function] / total:.1%}", f"{within[function] / total:.1%}", f"`{function}`")
                for function, _ in alone.most_common(top)]  # fmt: skip
        heads = (f"{name}, {callers} callers, of its time", "with what it calls", "function")
        parts.append(tables.table(heads, rows))
    return "\n\n".join(parts)


@click.command(context_settings={"show_default": True})
@click.option("--tree", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Another checkout, whose .venv has it installed, in place of this one.")  # fmt: skip
@click.option("--only", default="relu (1, 10), stream", help="Loads that have this in their title; '' for all.")
@click.option("--callers", default="1,32,256", help="Callers that each wait for their answer.")
@click.option("--seconds", default=3.0, type=click.FloatRange(1.0), help="Length of a measurement.")
@click.option("--top", default=15, type=click.IntRange(0), help="Functions a process; 0 for none.")
@click.option("--native", is_flag=True, help="Functions of C too.")
@click.option("--flags", default="", help="Further flags of `layerwire serve`.")
def main(directory: Path | None, only: str, callers: str, seconds: float, top: int, native: bool, flags: str) -> None:
    """Prints what a call costs each process, and what for; all share this machine's cores."""
    titles = [title for title in LOADS if only in title]
    if not titles:
        raise click.UsageError(f"no load has {only!r} in its title; they are {', '.join(LOADS)}")
    tree = tree_of(directory)
    program = spy() if top else None
    if top and program is None:
        click.echo("py-spy isn't installed (pip install py-spy, or set PY_SPY): no functions", err=True)
    click.echo(f"{tables.machine(machine())} Load average before: {os.getloadavg()[0]:.1f}.")
    with server(*LAYERWIRE, *flags.split(), tree=tree) as target:
        loads.prepare(target.address)
        for title in titles:
            counts = [int(word) for word in callers.split(",")]
            words = LOADS[title].split()
            rows = [row for count in counts for row in costs(tree, target, words, count, seconds)]
            click.echo(f"\n## {title}\n\n{tables.table(HEADS, rows)}")
            for count in counts if program is not None else ():
                assert program is not None
                click.echo("\n" + profile(tree, target, words, count, seconds, top, native=native, program=program))


if __name__ == "__main__":
    main()
