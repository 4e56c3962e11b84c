"""A worker process from start to end: `python -m layerwire_server.worker FD`, started by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

from layerwire_server import child
from layerwire_server.link import Link
from layerwire_server.operators import OPERATORS
from layerwire_server.store import Store
from layerwire_server.worker import canary
from layerwire_server.worker.call import Call, CallDecoder
from layerwire_server.worker.device import Device, numerics, open_device
from layerwire_server.worker.lane import Limits
from layerwire_server.worker.lanes import Lanes
from layerwire_server.worker.loop import WorkerLoop
from layerwire_server.worker.measures import Measures
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.weights import WeightsHolder

log = logging.getLogger(__name__)

_BATCH_OPERATIONS = 2e9  # predicted work at which a batch is closed: 0.1 s on a slow core; more company gains nothing
_DRAIN_SECONDS = 5.0  # gateways drain first; what is left here then, nobody waits for


async def run(process: child.Child) -> None:
    """The worker's life."""
    settings = process.settings
    asyncio.get_running_loop().set_exception_handler(_end)
    loop, about = _open(process)
    room = settings.max_message_bytes * 2  # a message and what frames add; the gateway has its own, exact limit
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: Link(loop, room), process.worker_path(process.index)
    )
    process.ready(about)
    watch = asyncio.create_task(loop.watch())
    await process.stopping.wait()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(loop.idle(), _DRAIN_SECONDS)
    watch.cancel()
    server.close()


def _open(process: child.Child) -> tuple[WorkerLoop, dict[str, object]]:
    """The worker, awake, and what it tells of itself."""
    settings = process.settings
    device = open_device(process.device, settings.threads or max((os.cpu_count() or 1) // process.workers, 1))
    weights = WeightsHolder(Store(Path(settings.store)), device.upload, settings.max_weights_bytes)
    plans = Plans(CallLimits(settings.max_output_bytes, settings.max_call_operations), device.kind)
    decoder = CallDecoder(plans, weights.get, deterministic=settings.deterministic)
    canary.wake_up(device, decoder)
    limits = Limits(
        settings.max_batch_rows,
        settings.max_batch_bytes,
        _BATCH_OPERATIONS,
        settings.max_queue_calls,
        settings.max_queue_bytes,
        settings.max_delay_seconds,
    )
    lanes: Lanes[Call] = Lanes(limits)
    about = _about(process, device)
    loop = WorkerLoop(
        process.index,
        device,
        lanes,
        decoder,
        weights,
        Measures(process.metrics),
        hello=json.dumps(about).encode(),
        hang_seconds=settings.hang_seconds,
    )
    process.before_snapshot = lambda: _gauge(process, device, loop, lanes, weights)
    return loop, about


def _end(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ends the process on an error in its own bookkeeping: the gateways hand its calls to the next, none hangs here."""
    log.critical("the worker's own work failed: %s", context["message"], exc_info=context.get("exception"))
    os._exit(1)


def _about(process: child.Child, device: Device) -> dict[str, object]:
    return {
        "index": process.index,
        "device": device.name,
        "device_name": device.full_name,
        "torch_version": torch.__version__,
        "operators": sorted(name for family in OPERATORS.values() for name in family),
        "numerics": numerics(),
    }


def _gauge(process: child.Child, device: Device, loop: WorkerLoop, lanes: Lanes[Call], weights: WeightsHolder) -> None:
    worker = str(process.index)
    metrics = process.metrics
    metrics.gauge("layerwire_calls_in_flight", worker=worker).set(loop.calls_in_flight)
    metrics.gauge("layerwire_queue_calls", worker=worker).set(lanes.calls)
    metrics.gauge("layerwire_queue_bytes", worker=worker).set(lanes.nbytes)
    metrics.gauge("layerwire_lanes", worker=worker).set(len(lanes))
    metrics.gauge("layerwire_weights_bytes", worker=worker).set(weights.nbytes)
    for kind, nbytes in device.memory().items():
        metrics.gauge("layerwire_device_memory_bytes", worker=worker, kind=kind).set(nbytes)


if __name__ == "__main__":
    child.main(run)
