"""The lines of the table that one function makes: Layerwire by its ways against the peers, the bare server and torch.

It knows what is sent and who takes part; neither how a turn is measured nor how it is shown.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import torch

import layerwire
from layerwire.transport.settings import make_settings
from layerwire_bench.plan import TargetSpec
from layerwire_bench.sending import mix, operators, programs
from layerwire_bench.sending.tensors import SampleSettings, StoredTensor
from layerwire_bench.targets.unary import UnaryTarget
from layerwire_bench.workload import Arrays, Terms, Workload
from tools.benchmarks import driver, loads, networks, processes, results
from tools.benchmarks.contenders import (
    Contender,
    DriverContender,
    InProcessContender,
    LoadTesterContender,
    Session,
    WrongAnswerError,
)
from tools.benchmarks.driver import Post
from tools.benchmarks.peers import launch
from tools.benchmarks.results import Claim, Result, Watch
from tools.benchmarks.servers import Server

STREAM, UNARY, UNARY_DRIVEN = "Layerwire, stream", "Layerwire, unary", "Layerwire, unary by h2load"
INFERENCE, MAP = "Layerwire, inference protocol", "Layerwire, 256 at once by lw.map"
BARE, LOCAL = "bare grpc.aio", "torch in the client's process"
# By torch's threads, 0 for its own choice: which is faster depends on who else is on the machine.
EAGER_ROWS = {"torch eager in process, 32 rows": 0, "torch eager in process, 32 rows, 1 thread": 1}
OTHERS = {"other checkout, stream": "stream", "other checkout, unary": "unary"}
PEERS = (launch.MOSEC, launch.MOSEC_SINGLE, launch.TRITON)
OURS = (STREAM, UNARY_DRIVEN)
SETTLE_SECONDS = 1.0  # before a line's rounds, for each contender: plans, pages
TUNE_SECONDS = 6.0  # likewise for those that tune behind calls: a trial, and the moment at which its choice begins
LARGE_SECONDS = 3.0  # of a turn with calls that take a tenth
_WAYS = {STREAM: "stream", UNARY: "unary", INFERENCE: "oip", BARE: "unary", LOCAL: "local"} | OTHERS
_MESSAGE_BYTES = [(f"grpc.max_{way}_message_length", 1 << 28) for way in ("send", "receive")]


@dataclass(frozen=True)
class Line:
    """A function, who takes part, and with how many callers.

    Attributes:
        workload: made with the Layerwire server's address.
        function: the peers' name of it; "" where they have none.
        callers: numbers of callers, a result each.
        testers: ways of the load tester at any number.
        more: further ones at some numbers.
        claims: by number of callers.
    """

    title: str
    workload: Callable[[str], Workload]
    function: str = ""
    callers: tuple[int, ...] = (1, 8, 32, 256)
    testers: tuple[str, ...] = (STREAM,)
    more: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    claims: Mapping[int, tuple[Claim, ...]] = field(default_factory=dict)
    is_large: bool = False


def operator(function: str, *shape: int, samples: int = 4, deterministic: bool = False, **arguments: object) -> Any:
    """Maker of a workload of an operator."""
    settings = SampleSettings(samples=samples, fetch=loads.WEIGHTS.get)
    terms = Terms(deterministic=deterministic)
    return lambda _address: mix.workload(
        [operators.entry_for(function, shape, arguments, settings=settings, terms=terms)]
    )


def program(name: str) -> Callable[[str], Workload]:
    """Maker of a workload of a stored program."""

    def workload(address: str) -> Workload:
        with layerwire.Client(address) as client:
            return mix.workload([programs.entry_for(programs.stored_program(client, name))])

    return workload


def _against_peers(name: str, at_8: str, at_32: str, least: float) -> dict[int, tuple[Claim, ...]]:
    return {
        callers: (Claim(f"{name}, {callers} callers, against the best peer", OURS, PEERS, bound, before),)
        for callers, bound, before in ((8, 1.5, at_8), (32, least, at_32))
    }


_RELU = _against_peers("relu (1, 10)", "1.06", "1.04", 2.0) | {
    1: tuple(
        Claim(f"one caller's p50, {way}, against bare grpc.aio", (name,), (BARE,), 1.1, "1.3", "p50_seconds")
        for way, name in (("unary", UNARY), ("stream", STREAM))
    ),
    256: (Claim("relu (1, 10), 256 callers, against bare grpc.aio", (STREAM,), (BARE,), 20.0, "8"),),
}
_CNN = _against_peers("small CNN", "1.06", "0.72", 2.0)
_CNN[32] += (
    Claim("small CNN, 32 callers, against torch eager with 32 rows", OURS, tuple(EAGER_ROWS), 1.0, "0.2 to 0.3"),
)
_LARGE = Claim("max_pool2d on 25.7 MB by gRPC, against the best peer", OURS, PEERS, 1.0, "0.56")
_NAMED: dict[str, Any] = {"weight": StoredTensor("w"), "bias": StoredTensor("b")}
_BESIDE = (STREAM, UNARY, BARE, LOCAL)
LINES = (
    Line("relu (1, 10)", operator("relu", 1, 10), "relu", more={1: (UNARY, BARE), 256: (BARE, MAP)}, claims=_RELU),
    Line("linear 512 to 512, named weights", operator("linear", 1, 512, **_NAMED), "linear",
         claims=_against_peers("linear 512", "1.55", "1.20", 2.0)),
    Line("max_pool2d with indices (1, 3, 32, 32)",
         operator("max_pool2d", 1, 3, 32, 32, kernel_size=2, return_indices=True), "max_pool2d",
         claims=_against_peers("max_pool2d with indices", "1.02", "0.85", 1.5)),
    Line("small CNN (1, 3, 32, 32), a program", program(loads.SMALL_CNN), "small-cnn", more={32: tuple(EAGER_ROWS)},
         claims=_CNN),
    Line("max_pool2d (8, 64, 112, 112), 25.7 MB there, by gRPC",
         operator("max_pool2d", 8, 64, 112, 112, samples=1, kernel_size=2), "large-max_pool2d", (1,),
         more={1: (BARE,)}, claims={1: (_LARGE,)}, is_large=True),
    Line("conv2d (1, 3, 32, 32), 8 filters of 3 by 3",
         operator("conv2d", 1, 3, 32, 32, weight=np.full((8, 3, 3, 3), 0.1, np.float32), padding=1),
         callers=(32,), testers=_BESIDE),
    Line("linear 512 to 512, `deterministic`", operator("linear", 1, 512, deterministic=True, **_NAMED),
         callers=(32,), testers=(STREAM, BARE, LOCAL)),
    Line("LeNet (1, 3, 32, 32), a program", program(loads.LENET), callers=(32,), testers=(*_BESIDE, INFERENCE)),
)  # fmt: skip


def measure(
    line: Line, ours: Server, bare: Server, other: Server | None, count: int, seconds: float, watch: Watch
) -> Iterator[Result]:
    """The line's results, one for each number of callers; `other` is another checkout's server."""
    with contextlib.ExitStack() as stack:
        workload = line.workload(ours.address)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contenders = _contenders(stack, line, workload, ours, bare, other, folder)
        for callers in line.callers:
            title = f"{line.title}, {callers} caller{'s' if callers > 1 else ''}"
            watch(title)
            more = line.more.get(callers, ())
            present = [
                one
                for name, one in contenders.items()
                if name in (*line.testers, *more, *OTHERS) or _is_for_driver(name)
            ]
            for contender in present:
                tunes = contender.name == STREAM or contender.name in OTHERS
                contender.turn(callers, TUNE_SECONDS if tunes else SETTLE_SECONDS)
            length = max(seconds, LARGE_SECONDS) if line.is_large else seconds
            neighbours = processes.Neighbours()
            turns = results.rounds(present, callers, count, length, watch)
            others = neighbours.ratio()
            notes = [] if others is None else [f"others used {others:.0%} of the machine's cores meanwhile"]
            yield Result(title, turns, line.claims.get(callers, ()), notes=notes)


def _is_for_driver(name: str) -> bool:
    return name == UNARY_DRIVEN or name in PEERS


def _contenders(
    stack: contextlib.ExitStack, line: Line, workload: Workload, ours: Server, bare: Server, other: Server | None,
    folder: Path,
) -> dict[str, Contender]:  # fmt: skip
    others = OTHERS if other is not None else ()
    names = dict.fromkeys([*line.testers, *(name for more in line.more.values() for name in more), *others])
    ways = [name for name in names if name in _WAYS]
    addresses = {BARE: bare, LOCAL: None} | dict.fromkeys(others, other)
    servers = {name: addresses.get(name, ours) for name in ways}
    specs = [
        TargetSpec(cast("Any", _WAYS[name]), None if one is None else one.address) for name, one in servers.items()
    ]
    session = Session(workload, specs)
    stack.callback(session.close)
    contenders: dict[str, Contender] = {
        name: LoadTesterContender(name, session, index, None if one is None else one.pid)
        for index, (name, one) in enumerate(servers.items())
    }
    contenders |= {name: eager_rows(name, threads) for name, threads in EAGER_ROWS.items() if name in names}
    if MAP in names:
        contenders |= map_contenders(stack, workload, ours)
    if line.function:
        contenders |= _driven_contenders(stack, line, workload, ours, folder)
    return contenders


def _driven_contenders(
    stack: contextlib.ExitStack, line: Line, workload: Workload, ours: Server, folder: Path
) -> dict[str, Contender]:
    """Those that h2load drives: Layerwire's unary RPCs and the peers."""
    if not driver.available():
        return {}
    sample = workload.samples[0]
    post, ask = unary_post(workload, ours.address, folder)
    contenders: dict[str, Contender] = {
        UNARY_DRIVEN: DriverContender(UNARY_DRIVEN, post, ask, sample, ours.pid, is_large=line.is_large)
    }
    if launch.versions():
        (x,) = (one for one in sample.request.tensors.values() if not isinstance(one, str))
        expected = sample.expected
        assert expected is not None
        for peer in stack.enter_context(launch.servers(line.function, x, folder)):
            question = _question(peer, expected)
            contenders[peer.name] = DriverContender(
                peer.name, peer.post, question, sample, peer.pid, is_large=line.is_large
            )
    return contenders


def _question(peer: launch.Peer, expected: Arrays) -> Callable[[], Arrays]:
    return lambda: peer.ask(expected)


def unary_post(workload: Workload, address: str, folder: Path) -> tuple[Post, Callable[[], Arrays]]:
    """The first sample as h2load's request to Layerwire, and what makes the same call beside it."""
    sample = workload.samples[0]
    call = UnaryTarget(make_settings(address, None, None, None), None).prepare(sample, workload.entries[0])
    body = folder / "unary.grpc"
    body.write_bytes(driver.grpc_body(call.payload))

    def ask() -> Arrays:
        with grpc.insecure_channel(address, options=_MESSAGE_BYTES) as channel:
            rpc: Any = channel.unary_unary(call.path)
            return call.read(rpc(call.payload))

    return Post(f"http://{address}{call.path}", body, http1=False, headers=driver.GRPC), ask


def map_contenders(stack: contextlib.ExitStack, workload: Workload, ours: Server) -> dict[str, Contender]:
    """The SDK's call for many arrays at once, where it has one; each array counts like a call."""
    client = stack.enter_context(layerwire.Client(ours.address))
    sample = workload.samples[0]
    (x,) = sample.request.tensors.values()
    arrays, method = [x] * 256, getattr(getattr(client, "map", None), sample.request.function, None)
    if method is None:
        return {}
    assert sample.expected is not None
    for answer in method(arrays):
        if not np.array_equal(answer, sample.expected["output"]):
            raise WrongAnswerError(f"{MAP}: another answer than torch's")
    return {MAP: InProcessContender(MAP, lambda: method(arrays), len(arrays), ours.pid)}


def eager_rows(name: str, threads: int) -> Contender:
    """torch, 32 rows of the small CNN at once, in this process; a row counts like a call."""
    network = networks.small_cnn()
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    count = threads or torch.get_num_threads()

    def run() -> torch.Tensor:
        torch.set_num_threads(count)
        with torch.inference_mode():
            return cast("torch.Tensor", network(images))

    return InProcessContender(name, run, 32)
