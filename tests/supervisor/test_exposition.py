"""Metrics of one process, and the page that adds those of all up."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from layerwire_server.metrics import METRICS, Metrics
from layerwire_server.supervisor import exposition
from layerwire_server.supervisor.exposition import LayerwireCollector, Page, Snapshots
from layerwire_server.supervisor.ports import PortError


@pytest.fixture
def snapshots():
    return Snapshots()


@pytest.fixture
def page(snapshots):
    page = Page("127.0.0.1:0", LayerwireCollector(snapshots, lambda: None))
    yield page
    page.close()


def samples(page):
    with urllib.request.urlopen(f"http://{page.address}/metrics", timeout=300) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted(n, seconds=()):
    metrics = Metrics()
    metrics.counter("layerwire_calls_total", operator="relu", code="OK").add(n)
    for value in seconds:
        metrics.histogram("layerwire_kernel_seconds", operator="relu").observe(value)
    metrics.gauge("layerwire_lanes", worker="0").set(n)
    return json.loads(json.dumps(metrics.snapshot()))


CALLS = ("layerwire_calls_total", ("code", "OK"), ("operator", "relu"))


def test_processes_are_added_up(snapshots, page):
    snapshots.update("worker-0", counted(3, [0.00001, 0.3]))
    snapshots.update("worker-1", counted(4, [0.3, 1000.0]))
    values = samples(page)
    assert values[CALLS] == 7
    assert values["layerwire_kernel_seconds_count", ("operator", "relu")] == 4
    assert values["layerwire_kernel_seconds_sum", ("operator", "relu")] == pytest.approx(1000.60001)
    assert values["layerwire_kernel_seconds_bucket", ("le", "1e-05"), ("operator", "relu")] == 1
    assert values["layerwire_kernel_seconds_bucket", ("le", "0.2"), ("operator", "relu")] == 1
    assert values["layerwire_kernel_seconds_bucket", ("le", "0.5"), ("operator", "relu")] == 3
    assert values["layerwire_kernel_seconds_bucket", ("le", "+Inf"), ("operator", "relu")] == 4


def test_totals_of_the_dead_stay_and_their_gauges_go(snapshots, page):
    snapshots.update("worker-0", counted(3, [0.3]))
    snapshots.update("worker-0", counted(5, [0.3, 0.3]))
    snapshots.retire("worker-0")
    assert samples(page)[CALLS] == 5
    assert ("layerwire_lanes", ("worker", "0")) not in samples(page)
    snapshots.update("worker-0", counted(1))
    snapshots.retire("worker-0")
    snapshots.retire("worker-0")
    values = samples(page)
    assert values[CALLS] == 6
    assert values["layerwire_kernel_seconds_count", ("operator", "relu")] == 2


def test_every_metric_is_told_of_before_it_has_values(page):
    with urllib.request.urlopen(f"http://{page.address}/metrics", timeout=300) as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    for name, metric in METRICS.items():
        family = families[name.removesuffix("_total") if metric.kind == "counter" else name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)


def test_there_is_no_other_page(page):
    with pytest.raises(urllib.error.HTTPError, match="404") as caught:
        urllib.request.urlopen(f"http://{page.address}/", timeout=300)
    caught.value.close()


def test_a_taken_address_is_told(page):
    with pytest.raises(PortError, match=f"--metrics: {page.address} can't be had: Address already in use"):
        Page(page.address, LayerwireCollector(Snapshots(), lambda: None))


@pytest.mark.parametrize("value", [0.0, 1e-5, 2e-5, 0.0003, 50.0, 51.0])
def test_a_value_falls_below_its_bound_and_no_lower_one(value):
    histogram = Metrics().histogram("layerwire_kernel_seconds", operator="relu")
    histogram.observe(value, 2)
    (index,) = [index for index, count in enumerate(histogram.counts) if count == 2]
    bounds = [*METRICS["layerwire_kernel_seconds"].buckets, float("inf")]
    assert value <= bounds[index]
    assert index == 0 or value > bounds[index - 1]


def test_only_what_the_table_has_can_be_counted():
    metrics = Metrics()
    with pytest.raises(KeyError, match="layerwire_unheard_of"):
        metrics.counter("layerwire_unheard_of")
    with pytest.raises(KeyError, match="is a counter"):
        metrics.gauge("layerwire_calls_total", operator="relu", code="OK")
    with pytest.raises(KeyError, match="labels"):
        metrics.counter("layerwire_calls_total", operator="relu")
    assert metrics.snapshot() == {}


def test_the_table_keeps_prometheus_rules():
    for name, metric in METRICS.items():
        assert name.startswith("layerwire_")
        assert name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))


def connect(page):
    host, _, port = page.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=300)


def test_silent_connections_end_one_another_and_keep_nobody_out(snapshots, page):
    snapshots.update("worker-0", counted(3))
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(page)) for _ in range(4 * exposition._MOST_CONNECTIONS)]
        for ended in connections[: -exposition._MOST_CONNECTIONS]:
            assert ended.recv(1) == b""
        assert samples(page)[CALLS] == 3
        threads = [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
        assert len(threads) <= exposition._MOST_CONNECTIONS
        assert connections[-1].send(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert connections[-1].recv(12) == b"HTTP/1.0 200"


def test_who_says_nothing_is_hung_up_on(page, monkeypatch, capfd):
    monkeypatch.setattr(exposition._SilentHandler, "timeout", 0.05)
    with connect(page) as silent, connect(page) as slow:
        slow.send(b"GET /met")
        assert (silent.recv(1), slow.recv(1)) == (b"", b"")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "junk", [b"\r\n\r\n", b"\x16\x03\x01" * 100, b"GET " + b"/" * 70000, b"GET / HTTP/9.9\r\n\r\n"]
)
def test_junk_is_answered_or_hung_up_on_and_no_event(snapshots, page, junk, capfd):
    snapshots.update("worker-0", counted(3))
    with connect(page) as connection:
        connection.sendall(junk)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                pass
    assert samples(page)[CALLS] == 3
    assert capfd.readouterr().err == ""
