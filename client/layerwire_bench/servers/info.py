"""What a target says of itself before anything is measured.

It knows GetServerInfo, and whom to ask by the Open Inference Protocol; nothing of load.
"""

from __future__ import annotations

from collections import Counter

from layerwire import Client
from layerwire.errors import LayerwireError
from layerwire_bench import machine
from layerwire_bench.plan import TargetSpec
from layerwire_bench.result import ServerInfo

_TIMEOUT_SECONDS = 10.0
# Settings of numerics that change speed.
_NUMERICS = ("threads", "cpu_capability", "float32_matmul_precision", "cuda.matmul.allow_tf32", "cudnn.allow_tf32")
_LIMITS = ("max_message_bytes", "max_queue_calls")


def server_info(spec: TargetSpec) -> ServerInfo:
    """Facts of a target. Of one that can't be asked: why."""
    if spec.address is None:
        return ServerInfo(str(spec), {"torch": machine.versions(("torch",)).get("torch", "not installed")})
    try:
        return ServerInfo(str(spec), _inference_facts(spec.address) if spec.how == "oip" else _facts(spec.address))
    except LayerwireError as error:
        return ServerInfo(str(spec), {"server": f"doesn't tell what it is: {error.code.name}"})


def _inference_facts(address: str) -> dict[str, str]:
    from layerwire_bench.servers import inference

    return inference.facts(address)


def _facts(address: str) -> dict[str, str]:
    with Client(address, timeout=_TIMEOUT_SECONDS, retries=0) as client:
        info = client.server_info()
    devices = Counter(
        worker.device if worker.device_name in ("", worker.device) else f"{worker.device} ({worker.device_name})"
        for worker in info.workers
    )
    workers = ", ".join(device if count == 1 else f"{count} on {device}" for device, count in devices.items())
    return {
        "server": f"layerwire {info.version}",
        "torch": info.torch_version,
        "workers": workers,
        **{name: f"{getattr(info.limits, name):,}" for name in _LIMITS},
        **{name: info.numerics[name] for name in _NUMERICS if name in info.numerics},
    }
