"""Devices: they take a batch's inputs in, run its operator, and bring the outputs back to the CPU.

They know torch and operators; nothing of calls, lanes or frames. CpuDevice is the twin that every test runs.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch

from layerwire_server.operators.operator import TORCH_DTYPES, Merge, Operator
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.running.batch import BatchInput, KernelInput, Part
from layerwire_server.worker.tensors import to_torch
from layerwire_server.worker.trials.tuner import Tuner

# What runs for less than this on one core, divided by the number of threads, runs on one thread. Threads of OpenMP wait
# for each other: where the cores have other work too, each layer of a small network waited up to 8 ms for a core.
_SERIAL_SECONDS = 0.004
_NO_MODE = contextlib.nullcontext()


class Phases(NamedTuple):
    """Where a batch's time went."""

    copy_in_seconds: float
    kernel_seconds: float
    copy_out_seconds: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.copy_in_seconds + self.kernel_seconds + self.copy_out_seconds


class DeviceRun(NamedTuple):
    """A batch's outputs, on the CPU, and its time on the device."""

    outputs: Sequence[torch.Tensor]
    phases: Phases


class Device(Protocol):
    """What the worker needs of a device.

    Attributes:
        name: torch's notation: "cpu", "cuda:0".
        kind: "cpu" or "cuda".
        full_name: what people call it.
        slots: batches that may run at once, so that copies of one overlap kernels of another.
        inline: whether small batches may run on the loop's own thread.
        tuner: picks the kernels; None where eager ones are all.
    """

    name: str
    kind: str
    full_name: str
    slots: int
    inline: bool
    tuner: Tuner | None

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """A CPU tensor on the device."""

    def run(self, key: LaneKey, inputs: Sequence[BatchInput], core_seconds: float) -> DeviceRun:
        """Runs a lane's operator on the inputs of a batch, which should take one core so long.

        Raises:
            RuntimeError: torch failed; the batch has no answers.
        """

    def memory(self) -> dict[str, float]:
        """Bytes of the device's memory by kind: allocated, reserved, total."""

    def free_cache(self) -> None:
        """Gives memory back that nothing uses."""


def kernel(key: LaneKey, tensors: Sequence[KernelInput]) -> tuple[torch.Tensor, ...]:
    """The batch's outputs; in fixed tiles for a deterministic lane."""
    operator = key.operator
    if not key.deterministic or key.merge is not Merge.ROWS or operator.tile_rows is None:
        return operator.run(*tensors)  # type: ignore[arg-type]  # programs take their weights as a tuple
    return _run_tiles(operator, operator.tile_rows, cast("Sequence[torch.Tensor | None]", tensors))


def _run_tiles(operator: Operator, tile: int, tensors: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, ...]:
    """Runs tiles of exactly `tile` rows, the last padded by zeros: what a row gives doesn't depend on the others'."""
    is_shared = [role.shared for role in operator.inputs]
    rows = cast(torch.Tensor, tensors[0]).shape[0]
    if rows == 0:
        return operator.run(*tensors)
    parts = []
    for start in range(0, rows, tile):
        inputs = [
            tensor if tensor is None or whole else _tile(tensor, start, tile)
            for tensor, whole in zip(tensors, is_shared, strict=True)
        ]
        parts.append(operator.run_tile(*inputs))
    return tuple(torch.cat(outputs)[:rows] for outputs in zip(*parts, strict=True))


def _tile(tensor: torch.Tensor, start: int, tile: int) -> torch.Tensor:
    piece = tensor[start : start + tile]
    padding = tile - piece.shape[0]
    if padding == 0:
        return piece
    return torch.cat([piece, piece.new_zeros((padding, *piece.shape[1:]))])


class CpuDevice:
    """The processor."""

    name = "cpu"
    kind = "cpu"
    slots = 1
    inline = True

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._threads = threads
        self.tuner: Tuner | None = None
        self.full_name = f"{platform.processor() or platform.machine()}, {threads} threads"

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself."""
        return tensor

    def run(self, key: LaneKey, inputs: Sequence[BatchInput], core_seconds: float) -> DeviceRun:
        """See Device.

        How many threads run it depends on its size alone, and so do its bits; those of deterministic calls on nothing.
        """
        is_serial = core_seconds * self._threads < _SERIAL_SECONDS and not key.deterministic
        threads = 1 if is_serial else self._threads
        torch.set_num_threads(threads)  # of this thread: it might have begun while another ran by one
        try:
            return self._run(key, inputs, threads)
        finally:
            if threads != self._threads:
                torch.set_num_threads(self._threads)

    def _run(self, key: LaneKey, inputs: Sequence[BatchInput], threads: int) -> DeviceRun:
        start = time.perf_counter()
        tensors = [self._kernel_input(part) if isinstance(part, Part) else part for part in inputs]
        site = None if self.tuner is None else self.tuner.site(key, tensors, threads)
        launch = time.perf_counter()
        # Nothing here asks for gradients. To say so takes as long as a small kernel, and saves a tenth of one for each.
        with torch.inference_mode() if key.has_steps else _NO_MODE:
            outputs = kernel(key, tensors) if site is None else site.run(tensors)
        seconds = time.perf_counter() - launch
        if site is not None and self.tuner is not None:
            self.tuner.count(site, tensors, seconds)
        return DeviceRun(outputs, Phases(launch - start, seconds, 0.0))

    def memory(self) -> dict[str, float]:
        """Nothing: the processes' resident memory is measured elsewhere."""
        return {}

    def free_cache(self) -> None:
        """Nothing to do: the C library keeps little."""

    @staticmethod
    def _kernel_input(part: Part) -> torch.Tensor:
        pieces = part.pieces
        return to_torch(pieces[0] if len(pieces) == 1 else b"".join(pieces), part.spec)


class CudaDevice:
    """A CUDA device. Each slot has a stream of its own; bytes go through page-locked staging, copied asynchronously."""

    kind = "cuda"
    slots = 2
    inline = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.tuner: Tuner | None = None
        self._device = torch.device(name)
        torch.cuda.set_device(self._device)
        self.full_name = torch.cuda.get_device_name(self._device)
        self._streams = [torch.cuda.Stream(self._device) for _ in range(self.slots)]  # type: ignore[no-untyped-call,unused-ignore]

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy on the device, complete, so that every stream may read it."""
        copy = tensor.to(self._device)
        torch.cuda.synchronize(self._device)
        return copy

    def run(self, key: LaneKey, inputs: Sequence[BatchInput], core_seconds: float) -> DeviceRun:
        """See Device. Called from at most `slots` threads at once."""
        stream = self._streams.pop()
        try:
            return self._run(stream, key, inputs)
        finally:
            self._streams.append(stream)

    def _run(self, stream: torch.cuda.Stream, key: LaneKey, inputs: Sequence[BatchInput]) -> DeviceRun:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]  # type: ignore[no-untyped-call,unused-ignore]
        start = time.perf_counter()
        with torch.inference_mode(), torch.cuda.stream(stream):
            staging = [self._stage(part) if isinstance(part, Part) else part for part in inputs]
            staging_seconds = time.perf_counter() - start
            marks[0].record(stream)
            tensors = [
                tensor.to(self._device, non_blocking=True) if isinstance(tensor, torch.Tensor) else tensor
                for tensor in staging  # what is on the device already stays where it is
            ]
            marks[1].record(stream)
            outputs = kernel(key, tensors)
            marks[2].record(stream)
            hosts = [self._to_host(output) for output in outputs]
            marks[3].record(stream)
            stream.synchronize()
        copy_in, run, copy_out = (marks[i].elapsed_time(marks[i + 1]) / 1e3 for i in range(3))
        return DeviceRun(hosts, Phases(staging_seconds + copy_in, run, copy_out))

    def _stage(self, part: Part) -> torch.Tensor:
        """The part's bytes in page-locked memory; torch's host allocator keeps such blocks for the next batch."""
        nbytes = part.spec.nbytes
        if nbytes == 0:
            return torch.empty(part.spec.shape, dtype=TORCH_DTYPES[part.spec.dtype])
        host = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
        target, offset = host.numpy(), 0
        for piece in part.pieces:
            target[offset : offset + len(piece)] = np.frombuffer(piece, np.uint8)
            offset += len(piece)
        return host.view(TORCH_DTYPES[part.spec.dtype]).view(part.spec.shape)

    @staticmethod
    def _to_host(output: torch.Tensor) -> torch.Tensor:
        contiguous = output.contiguous()
        host = torch.empty(contiguous.shape, dtype=contiguous.dtype, pin_memory=contiguous.numel() > 0)
        return host.copy_(contiguous, non_blocking=True)

    def memory(self) -> dict[str, float]:
        """See Device."""
        free, total = torch.cuda.mem_get_info(self._device)
        return {
            "allocated": float(torch.cuda.memory_allocated(self._device)),
            "reserved": float(torch.cuda.memory_reserved(self._device)),
            "used": float(total - free),
            "total": float(total),
        }

    def free_cache(self) -> None:
        """Gives torch's unused blocks back to the driver."""
        torch.cuda.empty_cache()


def open_device(name: str, threads: int) -> Device:
    """The device of a name in torch's notation; `threads` is for a CPU."""
    torch.backends.cuda.matmul.allow_tf32 = False  # answers are those of float32, whatever the card
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False  # the algorithm must not depend on what ran before
    return CpuDevice(threads) if name == "cpu" else CudaDevice(name)


def numerics() -> dict[str, str]:
    """The settings that decide an answer's last bits."""
    return {
        "cuda.matmul.allow_tf32": str(torch.backends.cuda.matmul.allow_tf32),
        "cudnn.allow_tf32": str(torch.backends.cudnn.allow_tf32),
        "cudnn.benchmark": str(torch.backends.cudnn.benchmark),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "threads": str(torch.get_num_threads()),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def environment() -> str:
    """What makes a CPU's kernels fast or slow, and round: choices of kernels hold where it is the same."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    machine = f"{capabilities.get('cpu_name', platform.machine())} {torch.backends.cpu.get_cpu_capability()}"
    return f"torch {torch.__version__}, {machine}, {torch.get_num_threads()} threads"
