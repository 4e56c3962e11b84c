"""Which devices there are, found out in milliseconds: torch, which knows too, takes seconds and is the workers' matter.

It knows the CUDA driver's library and torch's version file; it imports neither torch nor gRPC.
"""

from __future__ import annotations

import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

from layerwire_server.config import ConfigError

_PROBE_SECONDS = 30.0
# In a process of its own: the driver, once initialised, would keep memory and handles in the supervisor for ever.
_PROBE = """
import ctypes
try:
    driver = ctypes.CDLL("libcuda.so.1")
    count = ctypes.c_int(0)
    print(count.value if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) else count.value)
except OSError:
    print(0)
"""


def resolve(device: str) -> list[str]:
    """The devices that a `device` setting means, in torch's notation.

    Raises:
        ConfigError: it asks for CUDA devices that aren't there.
    """
    if device == "cpu":
        return ["cpu"]
    count = count_cuda() if torch_has_cuda() else 0
    if device == "auto" and count == 0:
        return ["cpu"]
    every = [f"cuda:{index}" for index in range(count)]
    names = every if device in ("auto", "cuda") else device.split(",")
    if not names or any(int(name.removeprefix("cuda:")) >= count for name in names):
        why = f"there are {count} CUDA devices" if torch_has_cuda() else "the installed torch has no CUDA"
        raise ConfigError(f"--device: {device} can't be had, {why}")
    return names


def torch_has_cuda() -> bool:
    """Whether the installed torch was built with CUDA, from its version file alone."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and bool(runpy.run_path(str(version)).get("cuda"))


def count_cuda() -> int:
    """CUDA devices that this process may use, so with CUDA_VISIBLE_DEVICES heeded; 0 without a driver."""
    try:
        probe = subprocess.run(
            [sys.executable, "-S", "-c", _PROBE], capture_output=True, timeout=_PROBE_SECONDS, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return 0
    return int(probe.stdout)
