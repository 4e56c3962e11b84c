"""Where a target's own counters are: found for it before anything is measured.

It knows each kind of counters there is; nothing of load.
"""

from __future__ import annotations

from typing import Any

from layerwire.calls import Request
from layerwire.errors import LayerwireError
from layerwire.transport.call import MAPS
from layerwire_bench.measuring.measure import Counts
from layerwire_bench.plan import TargetSpec
from layerwire_bench.sending.workload import Workload
from layerwire_bench.servers.server_metrics import PORT, PageCounts, PageError, read


def find(spec: TargetSpec, metrics: str | None, workload: Workload) -> tuple[Counts | None, str | None]:
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
            return PageCounts(page, (_operator(sample.request) for sample in workload.samples)), None
        except PageError as error:
            why = str(error) if metrics else f"{error}; --metrics HOST:PORT says where else"
    if spec.how == "oip":
        return _statistics(spec.address, workload, why)
    return None, why


def _statistics(address: str, workload: Workload, why: str) -> tuple[Counts | None, str | None]:
    """Those of the Open Inference Protocol, where the server has the extension."""
    from layerwire_bench.servers.model_statistics import StatisticsCounts

    counts = StatisticsCounts(address, _models(workload))
    try:
        counts.check()
    except LayerwireError as error:
        return None, f"{why}; ModelStatistics: {error.message}"
    return counts, None


def _operator(request: Request) -> str:
    """What its counts stand under on the server."""
    return request.family if request.family in MAPS else request.function


def _models(workload: Workload) -> list[tuple[str, str]]:
    """Name and version of each program; "" for the default version."""
    # Others the target itself refuses.
    programs: list[Any] = [sample.request.operator for sample in workload.samples if sample.request.family == "run"]
    return sorted({(one.name, str(one.version) if one.HasField("version") else "") for one in programs})


def _host(address: str) -> str | None:
    """The host of an address as gRPC writes them; None of a socket's path."""
    if address.startswith(("unix:", "unix-abstract:", "vsock:")):
        return None
    name = address.rpartition(":")[0].rpartition("/")[2]  # dns://authority/host:port
    return name.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:")
