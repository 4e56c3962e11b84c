"""Callers of every kind: those who get answers, those who are wrong, those who ask for more than there is room.

They know the SDK and which errors are theirs to expect, beside a full queue; any other ends them and is raised.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import numpy as np

import layerwire
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc as pb_grpc
from layerwire.v1 import operators_pb2
from layerwire.wire.arrays import from_numpy
from tests.chaos.faulty_worker import FAIL

BURST_CALLS = 400
FAILING_CALLS = 32
UNARY_CALLS = 100
_RANDOM = np.random.default_rng(0)
_ROWS = _RANDOM.normal(size=(8, 256)).astype(np.float32)
_WEIGHT = _RANDOM.normal(size=(256, 256)).astype(np.float32)
_IMAGES = _RANDOM.normal(size=(4, 3, 32, 32)).astype(np.float32)
_PLANE = _RANDOM.normal(size=(1, 1, 64, 64)).astype(np.float32)
_FILTERS = _RANDOM.normal(size=(8, 3, 3, 3)).astype(np.float32)
_UNARY = pb.ActivateRequest(
    operator=operators_pb2.ActivateOperator(relu=operators_pb2.Relu()), input=from_numpy(_ROWS[:1])
)


def _unary(client: layerwire.Client, address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = pb_grpc.LayerwireServiceStub(channel)
        for call in [stub.Activate.future(_UNARY, timeout=30) for _ in range(UNARY_CALLS)]:
            call.exception()


def _together(calls: Iterable[Future[object]]) -> None:
    """Waits for all; raises an error that one of them ended with."""
    errors = [call.exception(60) for call in list(calls)]
    for error in filter(None, errors):
        raise error


def _burst(client: layerwire.Client, _: str) -> None:
    """More at once than the queue takes, of calls that are soon sent and long run."""
    _together(client.submit.max_pool2d(_PLANE, 31, stride=1) for _ in range(BURST_CALLS))


def _device_failures(client: layerwire.Client, _: str) -> None:
    """Calls that the device fails, as chaos' faulty worker has it."""
    _together(client.submit.relu(np.full(1, FAIL, np.float32)) for _ in range(FAILING_CALLS))


Kind = Callable[[layerwire.Client, str], object]
KINDS: dict[str, tuple[Kind, tuple[type[Exception], ...]]] = {  # name -> one turn, and the errors it is meant to meet
    "relu": (lambda client, _: client.relu(_ROWS), ()),
    "linear": (lambda client, _: client.linear(_ROWS, "monitored"), ()),
    "max_pool2d": (lambda client, _: client.max_pool2d(_IMAGES, 2), ()),
    "conv2d": (lambda client, _: client.conv2d(_IMAGES, _FILTERS), ()),
    "unary": (_unary, ()),
    "wrong": (lambda client, _: client.max_pool2d(_IMAGES, 99), (layerwire.errors.InvalidArgumentError,)),
    "unknown": (lambda client, _: client.linear(_ROWS, "absent"), (layerwire.errors.NotFoundError,)),
    "burst": (_burst, ()),
    "failing": (_device_failures, (layerwire.errors.InternalError,)),
}


@contextmanager
def callers(address: str, pause_seconds: float = 0.0, **counts: int) -> Iterator[None]:
    """So many callers of each kind, each with one call at a time, until the context ends; raises what they met."""
    stop = threading.Event()
    kinds = list(itertools.chain.from_iterable([kind] * count for kind, count in counts.items()))

    def call(kind: str) -> None:
        turn, own_errors = KINDS[kind]
        while not stop.wait(pause_seconds):
            try:
                turn(client, address)
            except (*own_errors, layerwire.errors.ResourceExhaustedError):
                continue

    with layerwire.Client(address, retries=0) as client, ThreadPoolExecutor(len(kinds)) as threads:
        client.put_weights("monitored", _WEIGHT)
        running = [threads.submit(call, kind) for kind in kinds]
        try:
            yield
        finally:
            stop.set()
        for future in running:
            future.result(60)
