"""Where a target's own counters are: found for it before anything is measured.

It knows each kind of counters there is; nothing of load.
"""

from __future__ import annotations

from typing import Any

from layerwire.calls import Request
from layerwire.errors import LayerwireError
from layerwire.transport.call import MAPS
from layerwire_bench.plan import TargetSpec
from layerwire_bench.servers.page import PORT, PageCounters, PageError, read
from layerwire_bench.servers.readings import Counters
from layerwire_bench.workload import Workload


def find(spec: TargetSpec, metrics: str | None, workload: Workload) -> tuple[Counters[Any] | None, str | None]:
    """A target's counters, and why there are none: one of the two is None.

    Args:
        spec: the target.
        metrics: "host:port" of its page /metrics; None: the port 9464 of its host, if there is such a page.
        workload: what will be sent.
    """
    if spec.address is None:
        return None, "local: torch in this process counts nothing"
    host = _host(spec.address)
    page = metrics or (None if host is None else f"{host}:{PORT}")
    why = f"{spec}: no /metrics found; --metrics HOST:PORT says where it is"
    if page is not None:
        try:
            read(page)
            return PageCounters(page, (_operator(sample.request) for sample in workload.samples)), None
        except PageError as error:
            why = str(error) if metrics else f"{error}; --metrics HOST:PORT says where else"
    return _of_models(spec.address, workload, why) if spec.how == "oip" else (None, why)


def _of_models(address: str, workload: Workload, why: str) -> tuple[Counters[Any] | None, str | None]:
    """Those of the Open Inference Protocol, where the server has the extension."""
    from layerwire_bench.servers.inference import ModelCounters

    # What is no program the target itself refuses.
    programs: list[Any] = [sample.request.operator for sample in workload.samples if sample.request.family == "run"]
    models = {(one.name, str(one.version) if one.HasField("version") else "") for one in programs}
    counters = ModelCounters(address, sorted(models))
    try:
        counters.read()
    except LayerwireError as error:
        return None, f"{why}; ModelStatistics: {error.message}"
    return counters, None


def _operator(request: Request) -> str:
    """What its counts stand under on the server."""
    return request.family if request.family in MAPS else request.function


def _host(address: str) -> str | None:
    """The host of an address as gRPC writes them; None of a socket's path."""
    if address.startswith(("unix:", "unix-abstract:", "vsock:")):
        return None
    name = address.rpartition(":")[0].rpartition("/")[2]  # dns://authority/host:port
    return name.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:")
