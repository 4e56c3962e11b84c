"""What a frame costs the worker: its loop driven directly, without gateway or socket: `python -m tools.worker_speed`.

For each load and number of calls: microseconds of processor time a frame and a call, from the frame's bytes to those of
its last answer. It knows the worker's parts; with --tree those of another checkout take turns with this one's, each in
processes of their own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import uvloop
from safetensors.numpy import save

from layerwire.calls import Request, Requests
from layerwire.export import export
from layerwire.transport.call import NOBODY, Call
from layerwire.transport.options import Options
from layerwire.v1 import layerwire_pb2
from layerwire.wire.protobuf import prefix
from layerwire_server.link import Decoder, Family, Flag, Frame, Kind, encode
from layerwire_server.metrics import Metrics
from layerwire_server.programs.check import ProgramLimits
from layerwire_server.programs.variant import Facts
from layerwire_server.storage import Store
from layerwire_server.storage.names import NamedTensor
from layerwire_server.worker import dispatcher
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.lanes.lane import Limits
from layerwire_server.worker.lanes.lanes import Lanes
from layerwire_server.worker.loop import WorkerLoop
from layerwire_server.worker.measures import Measures
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.running.device import CpuDevice
from layerwire_server.worker.trials.choices import Choices
from layerwire_server.worker.trials.tuner import Tuner
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.stored_tensors import StoredTensors
from layerwire_server.worker.weights.weights_cache import WeightsCache
from tools.benchmarks import networks, tables
from tools.benchmarks.servers import ROOT, THIS, Tree, tree_of

_WARMUP_FRAMES = 30
_FRAMES = 20  # between two looks at the clock
_MESSAGE_BYTES = 1 << 26
_TURN_SECONDS = 300.0


def _row(width: int) -> np.ndarray[Any, Any]:
    return np.linspace(-1, 1, width, dtype=np.float32).reshape(1, width)


_REQUESTS = Requests()
_IMAGE = networks.IMAGE.numpy()
LOADS: dict[str, list[Request]] = {  # title -> kinds of calls, which take turns
    "relu": [_REQUESTS.relu(_row(10))],
    "linear": [_REQUESTS.linear(_row(512), "w", "b")],
    "pool": [_REQUESTS.max_pool2d(_IMAGE, 2, return_indices=True)],
    "cnn": [_REQUESTS.run("cnn", {"input": _IMAGE})],
    "softmax": [_REQUESTS.softmax(_row(10), dim=1)],
    "5-lanes": [_REQUESTS.softmax(_row(10 + index), dim=1) for index in range(5)],
    "4096-slopes": [_REQUESTS.leaky_relu(_row(10), (index + 1) / 8192) for index in range(4096)],
    "100-lanes": [_REQUESTS.softmax(_row(10 + index), dim=1) for index in range(100)],
}
FORMS = ("group", "single", "unary")


class AnswerCounter:
    """A worker's link whose other end takes whatever comes."""

    def __init__(self) -> None:
        self.last: asyncio.Future[None] | None = None
        self.payloads: list[bytes] = []

    def send(self, frame: Frame, body: Iterable[bytes | memoryview] | None = None) -> None:
        """Spells a frame out; the last answer ends the wait."""
        self.payloads.append(b"".join(encode(frame, body)[1:]))
        if frame.flags & Flag.ERROR:
            raise RuntimeError(f"the worker refused a frame: {self.payloads[-1]!r}")
        if frame.flags & Flag.LAST and self.last is not None:
            self.last.set_result(None)

    def cork(self) -> None:
        pass

    def uncork(self) -> None:
        pass

    def unsent_bytes(self) -> int:
        return 0

    def close(self) -> None:
        raise RuntimeError("the worker closed its link")


class Worker:
    """A worker's loop, on the running event loop and one thread.

    Attributes:
        tuner: of its kernels; without a trial they are eager.
    """

    def __init__(self, folder: Path) -> None:
        store = Store(folder)
        fill(store)
        device = CpuDevice(1)
        self.tuner = device.tuner = Tuner("startup", Choices(folder, "worker_speed", 0, read_only=False))
        stored_tensors = StoredTensors(store)
        cache = WeightsCache(stored_tensors, device.upload, 1 << 28)
        facts = Facts(ProgramLimits(_MESSAGE_BYTES, 1 << 28, 2e11), device.kind)
        catalog = Catalog(store, stored_tensors, cache, facts)
        lanes: Lanes[CallGroup] = Lanes(Limits(8192, 1 << 28, 1e12, queue_calls=20000, queue_bytes=1 << 30))
        plans = Plans(CallLimits(_MESSAGE_BYTES, 2e11), device.kind)
        self._loop = WorkerLoop(
            0, device, lanes, CallDecoder(plans, catalog, deterministic=False), catalog, Measures(Metrics()),
            hello=b"{}", hang_seconds=60.0, on_batch=lambda _: None, max_answer_bytes=_MESSAGE_BYTES,
        )  # fmt: skip
        self._link = AnswerCounter()
        self._decoder = Decoder(1 << 28)
        self._numbers = itertools.count(1)

    async def answers(self, kind: Kind, family: Family, payload: bytes) -> list[bytes]:
        """The payloads of the answers to a frame."""
        link, self._link.payloads = self._link, []
        link.last = asyncio.get_running_loop().create_future()
        frame = Frame(kind, next(self._numbers), payload, stream=1, family=family, arrived=time.monotonic())
        (received,) = self._decoder.feed(b"".join(encode(frame)))
        self._loop.on_frame(link, received)  # type: ignore[arg-type]  # all that it needs of a Link
        await link.last
        return link.payloads


def fill(store: Store) -> None:
    """Puts the weights and the program of the loads into a store."""
    tensors = {"w": networks.WEIGHT.numpy(), "b": networks.BIAS.numpy()}
    digest = store.put_weights([save(tensors)])
    store.name_weights({name: NamedTensor(digest, name) for name in tensors})
    network = export(networks.small_cnn(), torch.cat([networks.IMAGE] * 2), name="cnn")
    assert network.weights is not None
    digest = store.put_weights(network.weights.pieces())
    store.put_program("cnn", network.program.SerializeToString(deterministic=True), [digest])


def frame_of(load: Sequence[Request], count: int, form: str) -> tuple[Kind, Family, bytes]:
    """So many calls in a frame, in groups of those that are alike or singly; one of them as a unary request."""
    kinds = [Call(request, Options(), NOBODY) for request in load[:count]]
    calls = [kinds[index % len(kinds)] for index in range(count)]
    parts: list[bytes | memoryview] = []
    if form == "group":
        for kind in kinds:
            ids = [index + 1 for index, call in enumerate(calls) if call is kind]
            parts += kind.entry.group_parts(ids, [kind.data] * len(ids))[0]
    else:
        parts = [part for index, call in enumerate(calls) for part in call.entry.parts(index + 1, call.data)]
    body = b"".join(parts)
    message = prefix(1, len(body)) + body
    if form != "unary":
        return Kind.CALLS, Family.NONE, message
    (call,) = layerwire_pb2.StreamRequest.FromString(message).calls.calls
    field = call.WhichOneof("request")
    return Kind.UNARY, Family[field.upper()], getattr(call, field).SerializeToString()


async def measure(
    loads: Sequence[str], counts: Sequence[int], forms: Sequence[str], seconds: float, *, tunes: bool
) -> dict[str, float]:
    """Microseconds of processor time a frame, by load, form and calls: the median of many short looks."""
    dispatcher.INLINE_SECONDS = math.inf  # also while a batch's time is only guessed
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Path(folder))
        cases = [case for case in itertools.product(loads, forms, counts) if case[1] != "unary" or case[2] == 1]
        if tunes:
            for load, form, count in cases:
                await worker.answers(*frame_of(LOADS[load], count, form))
            worker.tuner.try_all()
        for load, form, count in cases:
            frame = frame_of(LOADS[load], count, form)
            check(await worker.answers(*frame), count, form)
            for _ in range(_WARMUP_FRAMES):
                await worker.answers(*frame)
            looks: list[float] = []
            while sum(looks) * _FRAMES < seconds:
                start = time.process_time()
                for _ in range(_FRAMES):
                    await worker.answers(*frame)
                looks.append((time.process_time() - start) / _FRAMES)
            figures[f"{load}, {form}, {count}"] = statistics.median(looks) * 1e6
    return figures


def check(payloads: Sequence[bytes], count: int, form: str) -> None:
    """Refuses answers that are errors, and too few of them."""
    if form == "unary":
        return
    answers = layerwire_pb2.StreamResponse.FromString(b"".join(payloads))
    groups = [layerwire_pb2.Answer.FromString(group.template) for group in answers.groups]
    if any(answer.HasField("status") for answer in [*answers.answers, *groups]):
        raise RuntimeError(f"a call failed: {answers}")
    if len(answers.answers) + sum(len(group.ids) // 8 for group in answers.groups) != count:
        raise RuntimeError(f"{count} calls weren't answered once each")


def turn(tree: Tree, words: Sequence[str]) -> dict[str, float]:
    """What one process measured by the server and SDK of a checkout; the tools and tests are this one's."""
    paths = [str(tree.root / "client"), str(tree.root / "server"), str(ROOT)]
    run = subprocess.run(
        tree.command("tools.worker_speed", "--turn", *words),
        cwd=ROOT, env=tree.environment() | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE, text=True, timeout=_TURN_SECONDS, check=True,
    )  # fmt: skip
    figures: dict[str, float] = json.loads(run.stdout)
    return figures


def table(rounds: Sequence[Sequence[dict[str, float]]], names: Sequence[str]) -> str:
    """Medians over rounds, with least and most; of two checkouts also the ratio of medians."""
    rows = []
    for title in rounds[0][0]:
        columns = [[figures[title] for figures in each] for each in rounds]
        medians = [statistics.median(column) for column in columns]
        calls = int(title.rsplit(" ", 1)[1])
        cells = [f"{median:,.0f} ({min(column):,.0f} to {max(column):,.0f})"
                 for median, column in zip(medians, columns, strict=True)]  # fmt: skip
        ratio = [f"{medians[1] / medians[0]:.2f}"] if len(medians) > 1 else []
        rows.append((title, *cells, f"{medians[0] / calls:,.1f}", *ratio))
    ratio_head = ["other / this"] if len(names) > 1 else []
    return tables.table(("load, form, calls", *(f"us a frame, {name}" for name in names), "a call", *ratio_head), rows)


@click.command(context_settings={"show_default": True})
@click.option("--loads", default="relu,linear,pool,cnn", help=f"Of {', '.join(LOADS)}.")
@click.option("--calls", default="1,8,32", help="Calls a frame.")
@click.option("--forms", default="group", help=f"How calls are spelled: {', '.join(FORMS)}.")
@click.option("--seconds", default=0.5, help="Processor time of each measurement.")
@click.option("--rounds", default=3, type=click.IntRange(1), help="Rounds; in each, every checkout has its turn.")
@click.option("--tree", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Another checkout.")
@click.option("--tune", is_flag=True, help="By the kernels that trials find the fastest, instead of eager.")
@click.option("--turn", "is_turn", is_flag=True, hidden=True)
def main(
    loads: str, calls: str, forms: str, seconds: float, rounds: int, tree: Path | None, tune: bool, is_turn: bool
) -> None:
    """Prints what a frame costs the worker."""
    words = [f"--loads={loads}", f"--calls={calls}", f"--forms={forms}", f"--seconds={seconds}"]
    words += ["--tune"] if tune else []
    if is_turn:
        counts = [int(count) for count in calls.split(",")]
        click.echo(json.dumps(uvloop.run(measure(loads.split(","), counts, forms.split(","), seconds, tunes=tune))))
        sys.stdout.flush()
        os._exit(0)  # torch's threads may be at work
    trees = [THIS] if tree is None else [THIS, tree_of(tree)]
    figures: list[list[dict[str, float]]] = [[] for _ in trees]
    for number in range(rounds):
        for index in range(len(trees))[:: -1 if number % 2 else 1]:
            figures[index].append(turn(trees[index], words))
    click.echo(table(figures, ["this", "other"][: len(trees)]))


if __name__ == "__main__":
    main()
