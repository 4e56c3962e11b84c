"""Rules, alerts, the dashboard and the runbook name only what the server has: metrics, labels, and their values."""

from __future__ import annotations

import re

import grpc
import pytest

from layerwire.cli import COMMANDS, OTHERS
from layerwire_server.metrics import METRICS, REJECTIONS
from tests.monitoring import deploy_files, promql

# Recorded beside the metrics themselves: some of the calls, some of the workers, and a share of their time.
DERIVED = {"calls_served", "calls_failed", "calls_refused", "requests_failed", "worker_serving", "device_busy"}
TARGET_LABELS = {"job", "instance"}
ALERT_LABELS = {"alertname", "alertstate", "severity"}
VALUES = {  # label -> what it can be, where that is a closed set
    "code": {code.name for code in grpc.StatusCode},
    "reason": {reason for reasons in REJECTIONS.values() for reason in reasons},
    "result": {"right", "wrong", "late"},
    "kind": {"allocated", "reserved", "used", "total"},
    "job": {"layerwire"},
    "severity": {"critical", "warning"},
    "alertstate": {"firing"},
}


def runbook_queries() -> list[str]:
    return re.findall(r"```promql\n(.*?)```", deploy_files.RUNBOOK.read_text(), flags=re.DOTALL)


EXPRESSIONS = {  # where -> expression
    **{rule.get("record") or rule["alert"]: rule["expr"] for rule in deploy_files.rules()},
    **{f"{query.panel}-{query.reference}": query.expression for query in deploy_files.queries()},
    **{f"runbook-{number}": block for number, block in enumerate(runbook_queries())},
}


def labels_of(metric: str) -> set[str]:
    """Labels that a metric or a recorded series can have beside the target's; KeyError if there is none such."""
    if metric in ("up", "ALERTS"):
        return ALERT_LABELS if metric == "ALERTS" else set()
    if ":" in metric:
        level, name, _ = metric.split(":")
        assert metric in deploy_files.record_names(), metric
        return set(level.split("_")[1:])
    name = re.sub(r"_(bucket|sum|count)$", "", metric)
    if name in METRICS and METRICS[name].kind == "histogram":
        assert name != metric, f"{metric} is a histogram"
        return {*METRICS[name].labels, *(["le"] if metric.endswith("_bucket") else [])}
    return set(METRICS[metric].labels)


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_names_are_the_servers(expression):
    selectors = list(promql.selectors(expression))
    assert selectors, "no metric is named"
    possible = set(TARGET_LABELS)
    for metric, matchers in selectors:
        labels = labels_of(metric) | TARGET_LABELS
        assert matchers.keys() <= labels, metric
        possible |= labels
        for label in matchers.keys() & VALUES.keys():
            assert set(matchers[label]) - {"OK"} <= VALUES[label], (metric, label)
    assert promql.grouping_labels(expression) <= possible | {"process"}


@pytest.mark.parametrize("name", deploy_files.record_names())
def test_recording_rules_are_named_as_prometheus_asks(name):
    level, metric, operations = name.split(":")
    assert level.split("_")[0] == "instance"
    assert operations
    metrics = {name.removesuffix("_total") for name in METRICS} | DERIVED
    for part in metric.split("_per_"):
        assert part.removesuffix("_total").removeprefix("layerwire_") in {
            it.removeprefix("layerwire_") for it in metrics
        }


def test_recording_rules_are_all_different():
    assert len(set(deploy_files.record_names())) == len(deploy_files.record_names())


def test_commands_of_the_runbook_are_there():
    commands = re.findall(r"layerwire (\w[\w-]*) (?:SERVER|--)", deploy_files.RUNBOOK.read_text())
    assert set(commands) >= {"info", "health"}
    assert set(commands) <= {*COMMANDS, *OTHERS}


@pytest.mark.parametrize(
    "wrong",
    [
        "rate(layerwire_cals_total[5m])",
        'layerwire_calls_total{method="x"}',
        'layerwire_calls_total{code="BAD"}',
        "sum by (worker) (layerwire_calls_total)",
        "layerwire_call_seconds",
        "instance:layerwire_calls:rate1m",
    ],
    ids=["metric", "label", "value", "grouping", "histogram", "rule"],
)
def test_wrong_names_are_found(wrong):
    with pytest.raises((AssertionError, KeyError)):
        test_names_are_the_servers(wrong)
