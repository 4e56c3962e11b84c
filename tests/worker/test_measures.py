"""What a worker counts of the calls it turns away."""

from __future__ import annotations

import pytest

from layerwire.errors import invalid
from layerwire_server.errors import OverLimitError
from layerwire_server.metrics import REJECTIONS, Metrics
from layerwire_server.worker.measures import Measures


def rejections(metrics: Metrics) -> dict[str, float]:
    return {labels[0]: value for labels, value in metrics.snapshot()["layerwire_rejected_total"]}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def measures(metrics: Metrics) -> Measures:
    return Measures(metrics)


def test_every_reason_is_there_before_it_is_met(measures: Measures, metrics: Metrics) -> None:
    assert rejections(metrics) == dict.fromkeys(REJECTIONS["worker"], 0)


def test_a_full_queue_is_counted_by_what_filled_it(measures: Measures, metrics: Metrics) -> None:
    for reason in ("calls", "bytes", "bytes", "quarantined"):
        measures.count_rejection(reason)
    counts = {reason: count for reason, count in rejections(metrics).items() if count}
    assert counts == {"queue_calls": 1, "queue_bytes": 2, "quarantined": 1}


@pytest.mark.parametrize("reason", ["output_bytes", "operations", "message_calls", "parameter_bytes"])
def test_a_call_over_a_limit_is_counted_by_the_limit(measures: Measures, metrics: Metrics, reason: str) -> None:
    measures.count_failure(None, OverLimitError(reason, "relu", "input", "is too much"))
    measures.count_failure(None, invalid("relu", "input", "is wrong"))
    assert {reason: count for reason, count in rejections(metrics).items() if count} == {reason: 1}
    assert metrics.counter("layerwire_calls_total", operator="relu", code="INVALID_ARGUMENT").value == 2
