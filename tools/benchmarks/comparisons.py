"""The standing set: what is compared with what, and what is sent.

Each figure has its two baselines in the same run: the bare grpc.aio server, and torch in the client's own process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

import layerwire
from layerwire_bench.sending import mix, operators, programs
from layerwire_bench.sending.tensors import SampleSettings, StoredTensor
from layerwire_bench.workload import Terms, Workload
from tools.benchmarks import networks
from tools.benchmarks.loads import WEIGHTS

SETTINGS = SampleSettings(fetch=WEIGHTS.get)


@dataclass(frozen=True)
class Comparison:
    """A workload and the ways to have it done, the bare server first.

    Attributes:
        workload: made from the address of the Layerwire server.
        targets: "bare", or how Layerwire is called, or "local".
        callers: where another number than usual makes sense.
        least_ratio: of "stream" that the project holds itself to; None for none.
    """

    title: str
    workload: Callable[[str], Workload]
    targets: tuple[str, ...] = ("bare", "stream", "unary", "local")
    least_ratio: float | None = None
    callers: int | None = None


def operator(function: str, *shape: int, deterministic: bool = False, **arguments: object) -> Callable[[str], Workload]:
    """Calls of an operator."""
    return lambda _address: mix.workload(
        [operators.entry_for(function, shape, arguments, settings=SETTINGS, terms=Terms(deterministic=deterministic))]
    )


def linear(*, deterministic: bool) -> Callable[[str], Workload]:
    """512 to 512 features, weights and bias named, which the bare server has of its own."""

    def workload(address: str) -> Workload:
        with layerwire.Client(address) as client:
            for name, array in WEIGHTS.items():
                client.put_weights(name, array)
        weights = {"weight": StoredTensor("w"), "bias": StoredTensor("b")}
        return operator("linear", 1, 512, deterministic=deterministic, **weights)(address)

    return workload


def lenet(address: str) -> Workload:
    """A deployed LeNet; the bare server has the torch module."""
    with layerwire.Client(address) as client:
        client.deploy("lenet", networks.lenet(), torch.cat([networks.IMAGE] * 2))
        return mix.workload([programs.entry_for(programs.stored_program(client, "lenet"))])


COMPARISONS = (
    Comparison("relu on (1, 10)", operator("relu", 1, 10), least_ratio=6.0),
    Comparison("max_pool2d on (1, 3, 32, 32), kernel 2", operator("max_pool2d", 1, 3, 32, 32, kernel_size=2)),
    Comparison(
        "conv2d on (1, 3, 32, 32), 8 filters of 3 by 3",
        operator("conv2d", 1, 3, 32, 32, weight=np.full((8, 3, 3, 3), 0.1, np.float32), padding=1),
    ),
    Comparison("linear 512 to 512 on (1, 512), named weights", linear(deterministic=False), least_ratio=5.0),
    Comparison("the same, `deterministic`", linear(deterministic=True), targets=("bare", "stream", "local")),
    Comparison(
        "LeNet on (1, 3, 32, 32), a program", lenet, ("bare", "stream", "unary", "oip", "local"), least_ratio=3.0
    ),
    Comparison("relu on (8, 64, 112, 112), 25.7 MB each way", operator("relu", 8, 64, 112, 112), callers=2),
)
