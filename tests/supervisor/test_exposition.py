"""Metrics of one process, and the page that adds those of all up."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from layerwire_server.metrics import METRICS, Metrics
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
