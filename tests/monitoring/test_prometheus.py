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
    all_series = prometheus.query(query.filled_in(RATE_INTERVAL))
    return {deploy_files.legend(query.legend, series.labels): series.points[-1][1] for series in all_series}


def until(condition, what):
    """Asks until it is so; Prometheus has no event that tells."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < patience, what()
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def idle(deployment):
    """Answers to all queries while nobody had called yet, by panel and reference; whichever test comes first."""
    status, workers = QUERIES[0], "instance:layerwire_worker_serving:sum == 1"
    until(
        lambda: deployment.prometheus.query(workers) and answers(deployment.prometheus, status) == {"OK": 0},
        lambda: f"never well: {answers(deployment.prometheus, status)}",
    )
    return {(query.panel, query.reference): answers(deployment.prometheus, query) for query in QUERIES}


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{query.panel}-{query.reference}")
def test_a_server_that_nobody_calls_has_an_answer(idle, query):
    values = idle[query.panel, query.reference]
    assert values, "empty"
    assert not any(math.isnan(value) for value in values.values())


def test_a_loaded_server_has_values_in_every_panel(idle, deployment):
    assert EXPECTED.keys() == {query.panel for query in QUERIES}
    unseen = {(panel, name) for panel, names in EXPECTED.items() for name in names}

    def see(names):
        """Returns when all of it has been there, at whatever moment, with a value above 0."""

        def all_seen():
            for query in QUERIES:
                values = answers(deployment.prometheus, query)
                unseen.difference_update((query.panel, name) for name, value in values.items() if value > 0)
            return not unseen & names

        until(all_seen, lambda: f"never seen: {unseen & names}")

    address = deployment.server.address
    kinds = dict.fromkeys(("relu", "linear", "max_pool2d", "conv2d", "unary", "wrong", "unknown", "burst"), 1)
    with callers(address, pause_seconds=0.01, **kinds):
        see(unseen - FAILING - DYING)
    with callers(address, pause_seconds=0.01, relu=1, failing=2):
        see(FAILING)
        os.kill(deployment.server.pids("worker")[0], signal.SIGKILL)
        see(DYING)


def test_every_rule_can_be_evaluated_and_every_runbook_query_asked(idle, deployment):
    with callers(deployment.server.address, relu=1, failing=1):
        rate = "instance:layerwire_calls_failed_per_calls:ratio_rate5m > 0"
        until(lambda: deployment.prometheus.query(rate), lambda: "no failure was counted")
    rules = deployment.prometheus.rules()
    assert len(rules) == len(list(deploy_files.rules()))
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    for query in runbook_queries():
        deployment.prometheus.query(query)  # an error is raised
