"""The page /metrics: what all processes of the server counted, as one.

It knows Prometheus' types and the snapshots of metrics.py; nothing of processes but their names.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from layerwire_server.metrics import METRICS, Metric, Snapshot
from layerwire_server.supervisor.ports import PortError, split

Values: TypeAlias = dict[tuple[str, ...], Any]  # label values -> number, or [counts, sum] of a histogram


_SILENCE_SECONDS = 5.0  # without a byte, after which a connection ends
_MOST_CONNECTIONS = 32


class Snapshots:
    """The last values of each process, and what those that are gone had counted, so that no total ever shrinks."""

    def __init__(self) -> None:
        self._past: dict[str, Values] = {}
        self._current: dict[str, dict[str, Values]] = {}
        self._lock = threading.Lock()  # pages are made in threads of the HTTP server

    def update(self, process: str, snapshot: Snapshot) -> None:
        """A process counted so much since it started; what the snapshot doesn't name is as it was."""
        with self._lock:
            values_by_name = self._current.setdefault(process, {})
            for name, values in snapshot.items():
                values_by_name.setdefault(name, {}).update((tuple(labels), state) for labels, state in values)

    def retire(self, process: str) -> None:
        """The process is gone: its totals stay, its gauges don't."""
        with self._lock:
            last = self._current.pop(process, {})
            counts = {name: values for name, values in last.items() if METRICS[name].kind != "gauge"}
            self._past = merge([self._past, counts])

    def totals(self) -> dict[str, Values]:
        """All of it added up."""
        with self._lock:
            return merge([self._past, *self._current.values()])


def merge(processes: Iterable[dict[str, Values]]) -> dict[str, Values]:
    """The values of several processes added up, by metric and label values."""
    sums: dict[str, Values] = {}
    for values_by_name in processes:
        for name, values in values_by_name.items():
            values_by_labels = sums.setdefault(name, {})
            for key, state in values.items():
                values_by_labels[key] = _sum(values_by_labels[key], state) if key in values_by_labels else state
    return sums


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, list):
        return [[a + b for a, b in zip(one[0], other[0], strict=True)], one[1] + other[1]]
    return one + other


class LayerwireCollector(Collector):
    """Prometheus' view of the snapshots.

    Args:
        refresh: brings the snapshots up to date; called for each page.
    """

    def __init__(self, snapshots: Snapshots, refresh: Callable[[], None]) -> None:
        self._snapshots = snapshots
        self._refresh = refresh

    def collect(self) -> Iterator[Family]:
        """prometheus_client: every metric, also those without values yet."""
        self._refresh()
        sums = self._snapshots.totals()
        for name, metric in METRICS.items():
            yield _FAMILIES[metric.kind](name, metric, sums.get(name, {}))


def _counter(name: str, metric: Metric, values: Values) -> Family:
    family = CounterMetricFamily(name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _gauge(name: str, metric: Metric, values: Values) -> Family:
    family = GaugeMetricFamily(name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram(name: str, metric: Metric, values: Values) -> Family:
    family = HistogramMetricFamily(name, metric.help, labels=metric.labels)
    bounds = [*(repr(bound) for bound in metric.buckets), "+Inf"]
    for labels, (counts, total) in values.items():
        below, buckets = 0, []
        for bound, count in zip(bounds, counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(labels, buckets, total)
    return family


_FAMILIES = {"counter": _counter, "gauge": _gauge, "histogram": _histogram}


class _SilentHandler(WSGIRequestHandler):
    timeout = _SILENCE_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """A scrape every few seconds is no event."""


class _Server(ThreadingWSGIServer):
    """A thread for each connection, and few of them: one too many ends the oldest, which whoever is silent becomes."""

    request_queue_size = 128  # connections not yet accepted; with 5 one more waits a second to try again

    def __init__(self, *args: Any) -> None:
        self._connections: dict[socket.socket, None] = {}  # oldest first
        self._lock = threading.Lock()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """socketserver: a connection came."""
        with self._lock:
            self._connections[request] = None
            if len(self._connections) > _MOST_CONNECTIONS:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                with contextlib.suppress(OSError):  # it is just ending
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """socketserver: a connection ends."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """socketserver: a connection broke, or said nothing; its thread is done with it."""


class Page:
    """/metrics over HTTP, in threads of its own.

    Attributes:
        address: host:port with the real port.

    Raises:
        PortError: the address can't be had.
    """

    def __init__(self, address: str, collector: Collector) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        metrics = make_wsgi_app(registry)

        def application(environ: Any, start_response: Any) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/metrics":
                page: Iterable[bytes] = metrics(environ, start_response)
                return page
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"the page is /metrics\n"]

        host, port = split(address)
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            server_class = type("Server", (_Server,), {"address_family": family})
            self._server: WSGIServer = make_server(host, port, application, server_class, _SilentHandler)
        except OSError as error:
            raise PortError(f"--metrics: {address} can't be had: {error.strerror or error}") from None
        self.address = address.rpartition(":")[0] + f":{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
