"""The real Prometheus on a real server: every query of the dashboard and the runbook has an answer, idle and loaded."""

from __future__ import annotations

import math
import os
import signal
import time

import pytest

from tests.monitoring import deploy_files
from tests.monitoring.callers import callers
from tests.monitoring.test_names import runbook_queries

pytestmark = pytest.mark.debian
PATIENCE_SECONDS = 60.0
RATE_INTERVAL = "8s"
QUERIES = deploy_files.queries()

# What comes with failing calls only, and with a worker's death.
FAILING = {("Status", "ErrorRate"), ("Failed", ""), ("Errors: calls not served, by status", "INTERNAL")}
DYING = {("Workers: serving, and replaced", "replaced")}
# Under load: panel -> names of series that must be there with a value above 0.
EXPECTED = {
    "Status": {"QueueSaturated", "ErrorRate"},
    "Workers serving": {""},
    "Calls": {""},
    "Failed": {""},
    "Turned away": {""},
    "Slowest p99": {""},
    "Devices busy": {""},
    "Traffic: calls answered, by operator": {"relu", "linear", "max_pool2d", "conv2d"},
    "Errors: calls not served, by status": {"INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "INTERNAL"},
    "Latency of calls": {"p50", "p99", "p99 conv2d"},
    "Where the time goes, mean by phase": {"queue", "copy in", "kernel", "copy out"},
    "Batching: calls and rows of a batch": {"calls", "rows"},
    "Saturation: calls held": {"waiting", "in flight", "unary requests"},
    "Devices and gateways: busy": {"devices", "busiest gateway"},
    "Devices: memory": {"worker 0", "weights"},
    "Workers: serving, and replaced": {"serving", "wanted", "replaced"},
}


def answers(prometheus, query):
    """The query's series by name, with their values."""
    found = prometheus.query(query.filled_in(RATE_INTERVAL))
    return {deploy_files.legend(query.legend, series.labels): series.points[-1][1] for series in found}


def until(condition, what):
    """Asks until it is so; Prometheus has no event that tells."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < patience, what()
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def idle(monitored):
    """Answers to all queries while nobody had called yet, by panel and reference; whichever test comes first."""
    status, serving = QUERIES[0], "instance:layerwire_worker_serving:sum == 1"
    until(
        lambda: monitored.prometheus.query(serving) and answers(monitored.prometheus, status) == {"OK": 0},
        lambda: f"never well: {answers(monitored.prometheus, status)}",
    )
    return {(query.panel, query.reference): answers(monitored.prometheus, query) for query in QUERIES}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.panel}-{query.reference}")
def test_a_server_that_nobody_calls_has_an_answer(idle, query):
    found = idle[query.panel, query.reference]
    assert found, "empty"
    assert not any(math.isnan(value) for value in found.values())


def test_a_loaded_server_has_values_in_every_panel(idle, monitored):
    assert EXPECTED.keys() == {query.panel for query in QUERIES}
    missing = {(panel, name) for panel, names in EXPECTED.items() for name in names}

    def see(wanted):
        """Returns when all of it has been there, at whatever moment, with a value above 0."""

        def all_seen():
            for query in QUERIES:
                values = answers(monitored.prometheus, query)
                missing.difference_update((query.panel, name) for name, value in values.items() if value > 0)
            return not missing & wanted

        until(all_seen, lambda: f"never seen: {missing & wanted}")

    address = monitored.server.address
    kinds = dict.fromkeys(("relu", "linear", "max_pool2d", "conv2d", "unary", "wrong", "unknown", "burst"), 1)
    with callers(address, pause_seconds=0.01, **kinds):
        see(missing - FAILING - DYING)
    with callers(address, pause_seconds=0.01, relu=1, failing=2):
        see(FAILING)
        os.kill(monitored.server.pids("worker")[0], signal.SIGKILL)
        see(DYING)


def test_every_rule_can_be_evaluated_and_every_runbook_query_asked(idle, monitored):
    with callers(monitored.server.address, relu=1, failing=1):
        rate = "instance:layerwire_calls_failed_per_calls:ratio_rate5m > 0"
        until(lambda: monitored.prometheus.query(rate), lambda: "no failure was counted")
    rules = monitored.prometheus.rules()
    assert len(rules) == len(list(deploy_files.rules()))
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    for query in runbook_queries():
        monitored.prometheus.query(query)  # an error is raised
