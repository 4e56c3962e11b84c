"""Runs a batch on the device: joins its calls, splits its outputs; if it fails, halves it until only the guilty fail.

It knows devices and the errors that torch raises; nothing of lanes, frames or sockets.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
import traceback
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch

from layerwire.errors import InternalError, LayerwireError, ResourceExhaustedError
from layerwire_server.operators.operator import Merge
from layerwire_server.programs.run import Run
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.running import batch
from layerwire_server.worker.running.batch import BatchInput, Part
from layerwire_server.worker.running.device import Device, Phases
from layerwire_server.worker.tensors import to_bytes

log = logging.getLogger(__name__)

Result: TypeAlias = "list[memoryview] | LayerwireError"

# cudaErrorMemoryAllocation is the one CUDA error after which the context still works
# (https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html).
_CUDA_OUT_OF_MEMORY = 2
_OPERATIONS_PER_SECOND, _BYTES_PER_SECOND = 5e10, 2.5e9  # of a core
_ACCELERATOR_ERRORS: tuple[type[Exception], ...] = tuple(
    getattr(torch, name) for name in ("AcceleratorError",) if hasattr(torch, name)
)


class DeviceLostError(Exception):
    """The device is in a state that this process can't leave: it must end, and another take over."""


class Execution(NamedTuple):
    """What became of a batch.

    Attributes:
        results: one an item of the batch.
        phases: its time.
        bearable_rows: the rows it had to be cut to for memory's sake.
        calls: the items that the results are of: the batch's own, or what they were cut into.
    """

    results: list[Result]
    phases: Phases
    bearable_rows: int | None = None
    calls: Sequence[CallGroup] = ()


def execute(device: Device, key: LaneKey, calls: Sequence[CallGroup]) -> Execution:
    """Runs a batch.

    Raises:
        DeviceLostError: the device is lost; no call has an answer.
    """
    refusal: LayerwireError | None = None
    try:
        return run_batch(device, key, calls)
    except Exception as error:
        if isinstance(error, LayerwireError):  # elements that a node can't take: only its kernel finds them
            refusal = error.with_traceback(None)
            refusal.__context__ = None
        if _is_sticky(error):
            raise DeviceLostError(str(error)) from error
        short_of_memory = _is_out_of_memory(error)
        cause = "".join(traceback.format_exception(error))  # the error itself would keep the batch's tensors alive
    if short_of_memory:
        device.free_cache()
    count = sum(call.count for call in calls)
    if count == 1:
        return Execution([refusal or _blame(calls[0], cause, short_of_memory)], Phases(0.0, 0.0, 0.0), None, calls)
    halves = [execute(device, key, half) for half in _halves(calls, count // 2)]
    phases = Phases(*(sum(values) for values in zip(*(half.phases for half in halves), strict=True)))
    rows = sum(call.rows * call.count for call in calls) // 2 if short_of_memory else None
    bearable = [value for value in (rows, *(half.bearable_rows for half in halves)) if value is not None]
    results = [result for half in halves for result in half.results]
    parts = [call for half in halves for call in half.calls]
    return Execution(results, phases, min(bearable, default=None), parts)


def _halves(calls: Sequence[CallGroup], middle: int) -> tuple[list[CallGroup], list[CallGroup]]:
    """The first so many calls, and the others."""
    first: list[CallGroup] = []
    second: list[CallGroup] = []
    for call in calls:
        count = min(middle, call.count)
        middle -= count
        if count:
            first.append(call if count == call.count else call.part(0, count))
        if count < call.count:
            second.append(call.part(count, call.count) if count else call)
    return first, second


def run_batch(device: Device, key: LaneKey, calls: Sequence[CallGroup]) -> Execution:
    """Runs a batch in which no call fails.

    Raises:
        Exception: whatever its kernel does; no call has an answer.
    """
    start = time.perf_counter()
    inputs = batch.join(key, calls)
    launch = time.perf_counter()
    outputs, phases = device.run(key, inputs, _core_seconds(key, calls, inputs))
    end = time.perf_counter()
    answers = batch.split(key, calls, [to_bytes(output) for output in outputs])
    copy_in_seconds = phases.copy_in_seconds + launch - start
    copy_out_seconds = phases.copy_out_seconds + time.perf_counter() - end
    return Execution(list(answers), Phases(copy_in_seconds, phases.kernel_seconds, copy_out_seconds), None, calls)


def _core_seconds(key: LaneKey, calls: Sequence[CallGroup], inputs: Sequence[BatchInput]) -> float:
    """What a batch should take a core of a CPU, by its operations and the bytes that come with it.

    Infinite where it must run as in a process of the caller's: the last bits of a lone row, such as of one long sum,
    depend on how many cores share it. Cores don't share rows in company, but each takes some of them.
    """
    is_lone = len(calls) == 1 and calls[0].rows * calls[0].count == 1
    if key.merge is not Merge.ROWS or (is_lone and not isinstance(key.operator, Run)):
        return math.inf
    cost = sum(call.cost * call.count for call in calls)
    nbytes = sum(sum(map(len, part.pieces)) for part in inputs if isinstance(part, Part))
    return cost / _OPERATIONS_PER_SECOND + nbytes / _BYTES_PER_SECOND


def _is_sticky(error: Exception) -> bool:
    if not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError):
        return False
    if isinstance(error, _ACCELERATOR_ERRORS):
        return getattr(error, "error_code", None) != _CUDA_OUT_OF_MEMORY
    return "CUDA error" in str(error)  # torch before 2.8 has no class of its own for them


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)  # the CPU allocator's words


def _blame(call: CallGroup, cause: str, short_of_memory: bool) -> LayerwireError:
    title = call.plan.operator.title
    if short_of_memory:
        return ResourceExhaustedError(f"{title}: the device has no memory for this call", operator=title)
    error_id = secrets.token_hex(8)
    fields = {"error_id": error_id, "operator": title, "request": call.request_id}
    log.error("call failed: %s", cause, extra={"fields": fields})
    return InternalError(f"{title}: failed, error id {error_id}", operator=title, error_id=error_id)
