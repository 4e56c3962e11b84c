"""A worker process from start to end: `python -m layerwire_server.worker FD`, started by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Coroutine
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
from layerwire_server.worker import canary
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.client_memory import ClientMemories
from layerwire_server.worker.lanes.lane import Limits
from layerwire_server.worker.lanes.lanes import Lanes
from layerwire_server.worker.loop import WorkerLoop
from layerwire_server.worker.measures import Measures
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.running.device import Device, environment, numerics, open_device
from layerwire_server.worker.trials.choices import Choices
from layerwire_server.worker.trials.tuner import Tuner
from layerwire_server.worker.warmup import History, warm_up
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.stored_tensors import StoredTensors
from layerwire_server.worker.weights.weights_cache import WeightsCache

log = logging.getLogger("layerwire_server.worker")  # run as a program, __name__ is "__main__"

_BATCH_OPERATIONS = 2e9  # predicted work at which a batch is closed: 0.1 s on a slow core; more company gains nothing
_WRITE_SECONDS = 2.0, 60.0
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of control groups version 2, which a container sees as its own
_SWEEP_SECONDS = 5.0
_DRAIN_SECONDS = 5.0  # gateways drain first; what is left here then, nobody waits for


async def run(process: child.Child) -> None:
    """The worker's life."""
    settings = process.settings
    asyncio.get_running_loop().set_exception_handler(_end)
    device = open_device(process.device, settings.threads or max(available_cores() // process.workers, 1))
    catalog = _catalog(settings, device)
    memories = ClientMemories(process.metrics.counter("layerwire_copied_bytes_total", place="to_client").add)
    decoder = _decoder(settings, device, catalog, memories)
    history = History(catalog.store.directory, process.index, read_only=catalog.store.read_only)
    canary.run_first_calls(device, decoder)
    device.tuner = _tuner(process, device, catalog.store)
    await _unless_stopped(process, _warm_up(device, decoder, history), device, history)
    loop, about = _open(process, device, catalog, decoder, history)
    room = settings.max_message_bytes * 2  # a message and what frames add; the gateway has its own, exact limit
    count_copies = process.metrics.counter("layerwire_copied_bytes_total", place="from_worker").add
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: Link(loop, room, count_copies), process.worker_path(process.index)
    )
    process.ready(about)
    work = (loop.watch(), _keep_written(history), _keep_swept(memories))
    tasks = [asyncio.create_task(each) for each in work]
    if process.index == 0:
        tasks.append(asyncio.create_task(loop.keep_store_swept()))
    if device.tuner is not None:
        device.tuner.start(loop.submit)
    await process.stop_event.wait()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(loop.idle(), _DRAIN_SECONDS)
    for task in tasks:
        task.cancel()
    if device.tuner is not None:
        await asyncio.to_thread(device.tuner.close)
    await _write(history)
    server.close()


async def _warm_up(device: Device, decoder: CallDecoder, history: History) -> None:
    start = time.monotonic()
    batches = await warm_up(device, decoder, await asyncio.to_thread(history.read))
    trials = 0
    if device.tuner is not None:
        trials = await asyncio.to_thread(device.tuner.try_all)
    history.end_warmup()
    if batches:
        seconds = round(time.monotonic() - start, 3)
        log.info("warmed up", extra={"fields": {"batches": batches, "trials": trials, "seconds": seconds}})


async def _unless_stopped(
    process: child.Child, warm_up: Coroutine[Any, Any, None], device: Device, history: History
) -> None:
    """Warms up; where the server ends meanwhile, so does the process, and no mark says that it died of what it did."""
    tasks = asyncio.create_task(warm_up), asyncio.create_task(process.stop_event.wait())
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    if tasks[0] not in done:
        history.end_warmup()
        if device.tuner is not None:
            device.tuner.choices.end_trial()
        logging.shutdown()
        os._exit(0)
    tasks[1].cancel()
    await tasks[0]  # raises what it did


async def _keep_swept(memories: ClientMemories) -> None:
    """Lets go of the memory of clients that have left."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        memories.sweep()


async def _keep_written(history: History) -> None:
    """Writes down which batches are frequent, soon at first and then now and then, in case the process is killed."""
    seconds = _WRITE_SECONDS[0]
    while True:
        await asyncio.sleep(seconds)
        if await _write(history):
            seconds = min(2 * seconds, _WRITE_SECONDS[1])


async def _write(history: History) -> bool:
    content = history.unwritten()
    if content is not None:
        await asyncio.to_thread(history.write, content)
    return content is not None


def _decoder(settings: Settings, device: Device, catalog: Catalog, memories: ClientMemories) -> CallDecoder:
    plans = Plans(CallLimits(settings.max_output_bytes, settings.max_call_operations), device.kind)
    return CallDecoder(plans, catalog, deterministic=settings.deterministic, memories=memories)


def _open(
    process: child.Child, device: Device, catalog: Catalog, decoder: CallDecoder, history: History
) -> tuple[WorkerLoop, dict[str, object]]:
    """The worker's loop, and what it reports of itself."""
    settings = process.settings
    limits = Limits(
        settings.max_batch_rows,
        settings.max_batch_bytes,
        _BATCH_OPERATIONS,
        settings.max_queue_calls,
        settings.max_queue_bytes,
        settings.max_delay_seconds,
    )
    lanes: Lanes[CallGroup] = Lanes(limits)
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
        on_batch=history.count,
    )
    process.before_snapshot = lambda: _gauge(process, device, loop, lanes, catalog)
    return loop, about


def _catalog(settings: Settings, device: Device) -> Catalog:
    store = Store(Path(settings.store), settings.max_store_bytes)
    stored_tensors = StoredTensors(store)
    weights_cache = WeightsCache(stored_tensors, device.upload, settings.max_weights_bytes)
    limits = ProgramLimits(settings.max_output_bytes, settings.max_program_bytes, settings.max_call_operations)
    return Catalog(store, stored_tensors, weights_cache, Facts(limits, device.kind))


def _tuner(process: child.Child, device: Device, store: Store) -> Tuner | None:
    """What picks kernels; nothing where the settings or the device leave no choice."""
    mode = process.settings.tune
    if mode == "off" or device.kind != "cpu":
        return None
    return Tuner(mode, Choices(store.directory, environment(), process.index, read_only=store.read_only))


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
        "numerics": {**numerics(), "tune": "off" if device.tuner is None else process.settings.tune},
    }


def _gauge(process: child.Child, device: Device, loop: WorkerLoop, lanes: Lanes[CallGroup], catalog: Catalog) -> None:
    worker = str(process.index)
    metrics = process.metrics
    metrics.gauge("layerwire_calls_in_flight", worker=worker).set(loop.calls_in_flight)
    metrics.gauge("layerwire_queue_calls", worker=worker).set(lanes.calls)
    metrics.gauge("layerwire_queue_bytes", worker=worker).set(lanes.nbytes)
    metrics.gauge("layerwire_lanes", worker=worker).set(len(lanes))
    metrics.gauge("layerwire_weights_bytes", worker=worker).set(catalog.weights_cache.nbytes)
    if device.tuner is not None:
        _gauge_kernels(process, device.tuner)
    for kind, nbytes in device.memory().items():
        metrics.gauge("layerwire_device_memory_bytes", worker=worker, kind=kind).set(nbytes)


def _gauge_kernels(process: child.Child, tuner: Tuner) -> None:
    metrics = process.metrics
    for (operator, kernel, result), count in dict(tuner.trials).items():
        labels = {"operator": operator, "kernel": kernel, "result": result}
        metrics.counter("layerwire_kernel_trials_total", **labels).value = count
    for (operator, kernel), count in dict(tuner.batches).items():
        metrics.counter("layerwire_kernel_batches_total", operator=operator, kernel=kernel).value = count
    for (operator, kernel), count in tuner.choices.counts.items():
        labels = {"worker": str(process.index), "operator": operator, "kernel": kernel}
        metrics.gauge("layerwire_kernel_choices", **labels).set(count)


def available_cores() -> int:
    """Cores that this process may use, fewer in a container than the machine has; at least one.

    A quota of 1.5 cores is 1, for a thread more would only wait for its turn.
    """
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        return max(min(affine, int(quota) // int(period)), 1)
    except (OSError, ValueError, ZeroDivisionError):  # no control group, or "max"
        return affine


if __name__ == "__main__":
    child.main(run)
