"""What a worker counts and times of its calls and batches.

It knows the table of metrics, calls and batches; it decides nothing.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from layerwire.errors import LayerwireError
from layerwire_server.errors import OverLimitError
from layerwire_server.metrics import Counter, Histogram, Metrics
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.model_statistics import ModelCounters
from layerwire_server.worker.request_kinds import KINDS
from layerwire_server.worker.running.execution import Execution

# An error's operator comes from arguments, so it is looked up before it becomes a label.
_LABELS = frozenset().union(*(kind.labels for kind in KINDS.values()))
# Full.reason -> reason of layerwire_rejected_total
_OF_LANES = {"calls": "queue_calls", "bytes": "queue_bytes", "seconds": "queue_seconds"}


class _OperatorMetrics(NamedTuple):
    calls: Counter  # with code OK
    call_seconds: Histogram
    queue_seconds: Histogram
    copy_in_seconds: Histogram
    kernel_seconds: Histogram
    copy_out_seconds: Histogram
    batch_calls: Histogram
    batch_rows: Histogram


class Measures:
    """Counters and histograms, looked up once an operator.

    Attributes:
        model_statistics: of calls that name a model.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.model_statistics = ModelCounters()
        self._metrics = metrics
        self._operators: dict[str, _OperatorMetrics] = {}
        self._rejections = metrics.rejections("worker")
        self._reasons = {
            reason: metrics.counter("layerwire_batch_closed_total", reason=reason)
            for reason in ("drained", "rows", "bytes", "cost", "deadline", "single")
        }

    def count_batch(self, batch: Batch[CallGroup], launch_time: float, execution: Execution) -> None:
        """A batch ran and its answers are on their way."""
        operator_metrics = self._operator_metrics(_label(batch.calls[0]))
        phases = execution.phases
        operator_metrics.copy_in_seconds.observe(phases.copy_in_seconds)
        operator_metrics.kernel_seconds.observe(phases.kernel_seconds)
        operator_metrics.copy_out_seconds.observe(phases.copy_out_seconds)
        operator_metrics.batch_calls.observe(batch.call_count)
        operator_metrics.batch_rows.observe(batch.rows)
        now = time.monotonic()
        times, arrival_time, successes = 0, batch.calls[0].arrival_time, 0
        for call, result in zip(batch.calls, execution.results, strict=True):
            if isinstance(result, LayerwireError):
                continue
            successes += call.count
            if call.arrival_time != arrival_time:  # calls of one frame share it: one observation for all
                operator_metrics.queue_seconds.observe(launch_time - arrival_time, times)
                operator_metrics.call_seconds.observe(now - arrival_time, times)
                times, arrival_time = 0, call.arrival_time
            times += call.count
        if times:
            operator_metrics.queue_seconds.observe(launch_time - arrival_time, times)
            operator_metrics.call_seconds.observe(now - arrival_time, times)
        operator_metrics.calls.add(successes)
        if batch.calls[0].model is not None:
            self.model_statistics.count_batch(batch, launch_time, now, execution, time.time())

    def count_close(self, batch: Batch[CallGroup]) -> None:
        """A batch was closed."""
        self._reasons[batch.reason].add()

    def count_failure(self, call: CallGroup | None, error: LayerwireError, times: int = 1) -> None:
        """So many calls ended with an error."""
        operator = _label(call) if call is not None else error.operator
        operator = operator if operator in _LABELS else "unknown"
        self._metrics.counter("layerwire_calls_total", operator=operator, code=error.code.name).add(times)
        if call is not None:
            self.model_statistics.count_failure(call, time.monotonic())
        if isinstance(error, OverLimitError):
            self._rejections[error.reason].add(times)

    def count_rejection(self, reason: str, times: int = 1) -> None:
        """So many calls were turned away: by `Full.reason` of the lanes, or "quarantined"."""
        self._rejections[_OF_LANES.get(reason, reason)].add(times)

    def _operator_metrics(self, operator: str) -> _OperatorMetrics:
        operator_metrics = self._operators.get(operator)
        if operator_metrics is None:
            metrics = self._metrics
            names = _OperatorMetrics._fields[1:]
            histograms = {name: metrics.histogram(f"layerwire_{name}", operator=operator) for name in names}
            calls = metrics.counter("layerwire_calls_total", operator=operator, code="OK")
            operator_metrics = self._operators[operator] = _OperatorMetrics(calls, **histograms)
        return operator_metrics


def _label(call: CallGroup) -> str:
    """What it is counted under."""
    operator = call.plan.operator
    return KINDS[operator.family].label(operator)
