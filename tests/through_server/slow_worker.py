"""A worker whose device takes its time for calls of relu that bring a magic number; else it is the real one."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from layerwire_server.child import child
from layerwire_server.worker import __main__ as worker
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.running.batch import BatchInput, Part
from layerwire_server.worker.running.device import CpuDevice, DeviceRun
from tests.served import MARK

SLOW, HELD = 671.0, 672.0
SLOW_SECONDS = 1.0


class SlowDevice(CpuDevice):
    """The CPU, where SLOW takes a second, and HELD waits for the file at MARK."""

    def run(self, key: LaneKey, inputs: Sequence[BatchInput], core_seconds: float = 0.0) -> DeviceRun:
        """device.Device."""
        for piece in inputs[0].pieces if isinstance(inputs[0], Part) else ():
            values = {value for (value,) in struct.iter_unpack("<f", piece[: len(piece) // 4 * 4])}
            if SLOW in values:
                time.sleep(SLOW_SECONDS)
            while HELD in values and not Path(os.environ[MARK]).exists():
                time.sleep(0.005)
        return super().run(key, inputs, core_seconds)


def open_device(name: str, threads: int) -> SlowDevice:
    """device.open_device."""
    device = SlowDevice(threads)
    device.inline = False  # the loop goes on reading meanwhile
    return device


if __name__ == "__main__":
    worker.open_device = open_device  # type: ignore[assignment]
    child.main(worker.run)
