"""A worker process from start to end: `python -m layerwire_server.worker FD`, started by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch

from layerwire_server.child import child
from layerwire_server.config import Settings
from layerwire_server.link import Link
from layerwire_server.operators import OPERATORS
from layerwire_server.programs.check import ProgramLimits
from layerwire_server.programs.variant import Facts
from layerwire_server.storage import Store
from layerwire_server.worker import canary, cores
from layerwire_server.worker.call import Call
from layerwire_server.worker.lanes.lane import Limits
from layerwire_server.worker.lanes.lanes import Lanes
from layerwire_server.worker.loop import WorkerLoop
from layerwire_server.worker.measures import Measures
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.reading.call import CallDecoder
from layerwire_server.worker.running.device import Device, numerics, open_device
from layerwire_server.worker.warmup import Memory, warm
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.stored_tensors import Originals
from layerwire_server.worker.weights.weights_cache import Copies

log = logging.getLogger("layerwire_server.worker")  # run as a program, __name__ is "__main__"

_BATCH_OPERATIONS = 2e9  # predicted work at which a batch is closed: 0.1 s on a slow core; more company gains nothing
_REMEMBER_SECONDS = 2.0, 60.0
_DRAIN_SECONDS = 5.0  # gateways drain first; what is left here then, nobody waits for


async def run(process: child.Child) -> None:
    """The worker's life."""
    settings = process.settings
    asyncio.get_running_loop().set_exception_handler(_end)
    device = open_device(process.device, settings.threads or max(cores.available() // process.workers, 1))
    catalog = _catalog(settings, device)
    decoder = _decoder(settings, device, catalog)
    memory = Memory(catalog.store.directory, process.index, read_only=catalog.store.read_only)
    await _wake(device, decoder, memory)
    loop, about = _open(process, device, catalog, decoder, memory)
    room = settings.max_message_bytes * 2  # a message and what frames add; the gateway has its own, exact limit
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: Link(loop, room), process.worker_path(process.index)
    )
    process.ready(about)
    tasks = [asyncio.create_task(loop.watch()), asyncio.create_task(_remember(memory))]
    if process.index == 0:
        tasks.append(asyncio.create_task(loop.keep_store_swept()))
    await process.stop_event.wait()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(loop.idle(), _DRAIN_SECONDS)
    for task in tasks:
        task.cancel()
    await _write(memory)
    server.close()


async def _wake(device: Device, decoder: CallDecoder, memory: Memory) -> None:
    started = time.monotonic()
    canary.wake_up(device, decoder)
    ran = await warm(device, decoder, await asyncio.to_thread(memory.recalled))
    memory.warmed()
    if ran:
        seconds = round(time.monotonic() - started, 3)
        log.info("warmed up", extra={"fields": {"batches": ran, "seconds": seconds}})


async def _remember(memory: Memory) -> None:
    """Writes down what is hot, soon at first and then now and then, in case the process is killed."""
    seconds = _REMEMBER_SECONDS[0]
    while True:
        await asyncio.sleep(seconds)
        if await _write(memory):
            seconds = min(2 * seconds, _REMEMBER_SECONDS[1])


async def _write(memory: Memory) -> bool:
    content = memory.changed()
    if content is not None:
        await asyncio.to_thread(memory.write, content)
    return content is not None


def _decoder(settings: Settings, device: Device, catalog: Catalog) -> CallDecoder:
    plans = Plans(CallLimits(settings.max_output_bytes, settings.max_call_operations), device.kind)
    return CallDecoder(plans, catalog, deterministic=settings.deterministic)


def _open(
    process: child.Child, device: Device, catalog: Catalog, decoder: CallDecoder, memory: Memory
) -> tuple[WorkerLoop, dict[str, object]]:
    """The worker's loop, and what it tells of itself."""
    settings = process.settings
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
        catalog,
        Measures(process.metrics),
        hello=json.dumps(about).encode(),
        hang_seconds=settings.hang_seconds,
        max_answer_bytes=settings.max_message_bytes,
        ran=memory.ran,
    )
    process.before_snapshot = lambda: _gauge(process, device, loop, lanes, catalog)
    return loop, about


def _catalog(settings: Settings, device: Device) -> Catalog:
    store = Store(Path(settings.store), settings.max_store_bytes)
    originals = Originals(store)
    copies = Copies(originals, device.upload, settings.max_weights_bytes)
    limits = ProgramLimits(settings.max_output_bytes, settings.max_program_bytes, settings.max_call_operations)
    return Catalog(store, originals, copies, Facts(limits, device.kind))


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


def _gauge(process: child.Child, device: Device, loop: WorkerLoop, lanes: Lanes[Call], catalog: Catalog) -> None:
    worker = str(process.index)
    metrics = process.metrics
    metrics.gauge("layerwire_calls_in_flight", worker=worker).set(loop.calls_in_flight)
    metrics.gauge("layerwire_queue_calls", worker=worker).set(lanes.calls)
    metrics.gauge("layerwire_queue_bytes", worker=worker).set(lanes.nbytes)
    metrics.gauge("layerwire_lanes", worker=worker).set(len(lanes))
    metrics.gauge("layerwire_weights_bytes", worker=worker).set(catalog.copies.nbytes)
    for kind, nbytes in device.memory().items():
        metrics.gauge("layerwire_device_memory_bytes", worker=worker, kind=kind).set(nbytes)


if __name__ == "__main__":
    child.main(run)
