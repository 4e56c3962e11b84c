"""A worker whose device breaks on calls of relu that bring a magic number; else it is the real one."""

from __future__ import annotations

import os
import signal
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from layerwire_server.child import child
from layerwire_server.worker import __main__ as worker
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.running.batch import BatchInput, Part
from layerwire_server.worker.running.device import CpuDevice, DeviceRun
from tests.served import MARK

SEGFAULT, HANG, STICKY_ONCE, FAIL = 666.0, 667.0, 668.0, 669.0


class FaultyDevice(CpuDevice):
    """The CPU, with faults."""

    def run(self, key: LaneKey, inputs: Sequence[BatchInput], core_seconds: float) -> DeviceRun:
        """device.Device."""
        for piece in inputs[0].pieces if isinstance(inputs[0], Part) else ():
            for (value,) in struct.iter_unpack("<f", piece[: len(piece) // 4 * 4]):  # a group's rows are one piece
                self._break(value)
        return super().run(key, inputs, core_seconds)

    def _break(self, magic: float) -> None:
        if magic == SEGFAULT:
            os.kill(os.getpid(), signal.SIGSEGV)
        elif magic == HANG:
            threading.Event().wait()
        elif magic == FAIL:
            raise RuntimeError("the kernel failed")
        elif magic == STICKY_ONCE and not Path(os.environ[MARK]).exists():
            Path(os.environ[MARK]).touch()
            error = torch.AcceleratorError("CUDA error: device-side assert triggered")
            error.error_code = 710  # type: ignore[attr-defined]
            raise error


def open_device(name: str, threads: int) -> FaultyDevice:
    """device.open_device."""
    device = FaultyDevice(threads)
    device.inline = False  # a hang is then the device's, not the loop's
    return device


if __name__ == "__main__":
    worker.open_device = open_device  # type: ignore[assignment]
    child.main(worker.run)
