"""`layerwire demo`: runs both parts against a server and tells how they went.

It knows what is shown and in which order; the parts do the work.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from layerwire.cli import connection

if TYPE_CHECKING:
    from rich.console import Console

CALLERS = 16
NEEDS = ("torch", "matplotlib", "sklearn")
PICTURE, LOG = "stages.png", "server.log"
WAIT_SECONDS = 10.0  # for a server that is said to be there already
PREFIX = "layerwire-demo/"  # of the names of its weights on the server
NETWORK = "digits"  # its name there


@click.command()
@click.option("--address", metavar="ADDRESS", help="A server that runs already. Default: one of the demo's own.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    metavar="DIRECTORY",
    help="Where the picture and the server's log go.",
)
@click.option("--keep", is_flag=True, help="Keep the demo's server, and the network on it, until Ctrl-C.")
def command(address: str | None, output: Path, keep: bool) -> None:
    """A photograph and a small CNN through a server of its own.

    Or through one that runs already, at --address. Takes a photograph through convolution, batch norm, ReLU, max
    pooling and unpooling and draws the stages; trains a CNN on handwritten digits and classifies those held out by 16
    callers at once, first with every layer a call, then as a network that was deployed in one line.
    """
    if address is not None:
        connection.settings(address)
        if keep:
            raise click.UsageError("--keep is about a server of the demo's own: leave --address out")
    _check_installed()
    from rich.console import Console

    from layerwire.demo import server

    console = Console(highlight=False)
    _make(output)
    try:
        with ExitStack() as stack:
            if address is None:
                with console.status("Starting a server"):
                    address, metrics = stack.enter_context(server.serve(output / LOG))
                console.print(f"Server on {address}, its log in {output / LOG}")
            _run(console, address, output)
            if keep:
                _wait(console, address, metrics)
    except server.ServerError as error:
        raise click.ClickException(str(error)) from None
    console.print("Done.")


def _wait(console: Console, address: str, metrics: str) -> None:
    """Tells what else can be done with the server, until Ctrl-C or SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has what it starts in the background ignore SIGINT
        signal.signal(number, signal.default_int_handler)
    program = PREFIX + NETWORK
    command = f"layerwire bench {address} run {program} --metrics {metrics} --html bench.html"
    console.print(f"The server stays until Ctrl-C, with {program} on it. To load-test it:", soft_wrap=True)
    console.print(f"  {command}", soft_wrap=True)
    with suppress(KeyboardInterrupt):
        Event().wait()


def _make(output: Path) -> None:
    """Makes the directory; ends the command where nothing can be written to it."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise click.BadParameter(f"{output} can't be written: {reason}", param_hint="'--output'") from None


def _check_installed() -> None:
    """Ends the command where a library of the demo is missing."""
    for name in NEEDS:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            click.echo(f"Error: demo: {error.name} is not installed; pip install 'layerwire[demo]'", err=True)
            click.get_current_context().exit(2)


def _run(console: Console, address: str, output: Path) -> None:
    import torch

    import layerwire

    torch.set_num_threads(1)  # training so small a network is faster so, and the server has the other cores
    with layerwire.Client(address) as client:
        with console.status(f"Waiting for {address}"):
            client.wait_ready(WAIT_SECONDS)
        _photograph(console, client, output / PICTURE)
    asyncio.run(_digits(console, address))


def _photograph(console: Console, client: Any, path: Path) -> None:
    import torch
    from torch.nn import functional

    from layerwire.demo import photograph, picture

    with console.status("Taking a photograph through five layers"):
        pixels, filters = photograph.load(), photograph.kernels()
        weight = torch.stack(list(filters.values()))
        remote = photograph.stages(client, pixels, weight)
        difference = photograph.difference(remote, photograph.stages(functional, pixels, weight))
        picture.draw(pixels, filters, remote, path)
    shape = " x ".join(map(str, pixels.shape))
    console.print(f"Photograph ({shape}) through five layers: {path}")
    console.print(f"  largest difference from local torch: {difference:.2g}")


async def _digits(console: Console, address: str) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    import layerwire
    from layerwire.demo import callers, digits

    train_set, held_out = digits.load()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        epochs = progress.add_task("Training a CNN on digits, epochs", total=digits.EPOCHS)
        weights = digits.train(train_set, lambda: progress.advance(epochs))
        images = progress.add_task(f"Digits by {CALLERS} callers at once", total=len(held_out.images))
        networks = progress.add_task("The same, the network deployed", total=len(held_out.images))
        async with layerwire.AsyncClient(address) as client:
            for name, weight in weights.items():
                await client.put_weights(PREFIX + name, weight)
            names = {name: PREFIX + name for name in weights}
            by_layers = await callers.run(client, names, held_out.images, CALLERS, lambda: progress.advance(images))
            await asyncio.to_thread(_deploy, address, digits.module(weights), held_out.images[:2])
            as_network = await callers.run_program(
                client, PREFIX + NETWORK, held_out.images, CALLERS, lambda: progress.advance(networks)
            )
    _table(console, {"layer by layer": by_layers, "deployed": as_network}, weights, held_out)


def _deploy(address: str, network: Any, example: Any) -> None:
    import layerwire

    with layerwire.Client(address) as client:
        client.deploy(PREFIX + NETWORK, network, example)


def _table(console: Console, outcomes: dict[str, Any], weights: Any, held_out: Any) -> None:
    from rich import box
    from rich.table import Table
    from torch.nn import functional

    from layerwire.demo import digits

    local = digits.run(functional, weights, held_out.images)
    columns = [_column(outcome, local, held_out) for outcome in outcomes.values()]
    title = f"{len(held_out.images):,} digits, {CALLERS} callers at once"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column()
    for name in outcomes:
        table.add_column(name, justify="right")
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    console.print(table)
    console.print(f"  accuracy of local torch: {digits.accuracy(local[-1], held_out.labels):.2%}")


def _column(outcome: Any, local: list[Any], held_out: Any) -> dict[str, str]:
    from layerwire.demo import digits

    pairs = zip(outcome.layers, local[-len(outcome.layers) :], strict=True)
    difference = max(float((there - here).abs().max()) for there, here in pairs)
    measurement = outcome.measurement
    calls = len(measurement.latencies_seconds)
    return {
        "accuracy": f"{digits.accuracy(outcome.layers[-1], held_out.labels):.2%}",
        "largest difference": f"{difference:.2g}",
        "calls": f"{calls:,}",
        "digits/s": f"{len(held_out.images) / outcome.seconds:,.0f}",
        "calls/s": f"{calls / outcome.seconds:,.0f}",
        "mean calls per batch": f"{calls / measurement.batches:.2f}",
        "latency p50": f"{measurement.quantile_seconds(0.50) * 1e3:.2f} ms",
        "latency p99": f"{measurement.quantile_seconds(0.99) * 1e3:.2f} ms",
    }
