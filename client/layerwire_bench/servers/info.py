"""What a target says of itself before anything is measured.

It knows GetServerInfo and the Open Inference Protocol; nothing of load.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from layerwire.errors import LayerwireError
from layerwire.v1 import layerwire_pb2 as messages
from layerwire_bench import machine
from layerwire_bench.plan import TargetSpec
from layerwire_bench.result import ServerInfo
from layerwire_bench.servers import rpc

if TYPE_CHECKING:
    from layerwire_bench.servers.inference import Model

_GET_SERVER_INFO = "/layerwire.v1.LayerwireService/GetServerInfo"
# Settings of numerics that change speed.
_NUMERICS = ("threads", "cpu_capability", "float32_matmul_precision", "cuda.matmul.allow_tf32", "cudnn.allow_tf32")
_LIMITS = ("max_message_bytes", "max_queue_calls")


def server_info(spec: TargetSpec) -> ServerInfo:
    """Facts of a target. Of one that can't be asked: why."""
    if spec.address is None:
        return ServerInfo(str(spec), {"torch": machine.versions(("torch",)).get("torch", "not installed")})
    facts = _inference_facts if spec.how == "oip" else _layerwire_facts
    try:
        with rpc.connect(spec.address) as server:
            return ServerInfo(str(spec), facts(server))
    except LayerwireError as error:
        return ServerInfo(str(spec), {"server": f"doesn't tell what it is: {error.code.name}"})


def model(address: str, name: str, version: str = "") -> Model:
    """A model of a server of the Open Inference Protocol: what it takes and gives.

    Raises:
        NotFoundError: there is none of that name and version.
        LayerwireError: the server couldn't be asked.
    """
    from layerwire_bench.servers import inference

    with rpc.connect(address) as server:
        return inference.model(server, name, version)


def _layerwire_facts(server: rpc.ServerConnection) -> dict[str, str]:
    info = server.ask(_GET_SERVER_INFO, messages.GetServerInfoRequest(), messages.GetServerInfoResponse)
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


def _inference_facts(server: rpc.ServerConnection) -> dict[str, str]:
    from layerwire_bench.servers import inference

    answer = inference.ask(server, "ServerMetadata")
    return {"server": f"{answer.name} {answer.version}".strip(), "extensions": ", ".join(answer.extensions)}
