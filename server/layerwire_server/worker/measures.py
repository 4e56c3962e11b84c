"""What a worker counts and times of its calls and batches.

It knows the table of metrics, calls and batches; it decides nothing.
"""

from __future__ import annotations

import time

from layerwire.errors import LayerwireError
from layerwire_server.errors import OverLimitError
from layerwire_server.metrics import Metrics
from layerwire_server.worker.call import CallGroup
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.model_statistics import ModelCounters
from layerwire_server.worker.request_kinds import KINDS
from layerwire_server.worker.running.execution import Execution

# An error's operator comes from arguments, so it is looked up before it becomes a label.
_LABELS = frozenset().union(*(kind.labels for kind in KINDS.values()))
# Full.reason -> reason of layerwire_rejected_total
_OF_LANES = {"calls": "queue_calls", "bytes": "queue_bytes", "seconds": "queue_seconds"}


_BATCH_HISTOGRAMS = ("copy_in_seconds", "kernel_seconds", "copy_out_seconds", "batch_calls", "batch_rows")
_MOST_UNCOUNTED = 1024  # batches of an operator


class _OperatorMetrics:
    """Of one operator. Histograms get their values when somebody looks, all at once: that takes a third of the time."""

    __slots__ = ("_batch_histograms", "_call_histograms", "batches", "calls", "waits")

    def __init__(self, metrics: Metrics, operator: str) -> None:
        self.calls = metrics.counter("layerwire_calls_total", operator=operator, code="OK")
        self._batch_histograms = [
            metrics.histogram(f"layerwire_{name}", operator=operator) for name in _BATCH_HISTOGRAMS
        ]
        self._call_histograms = [
            metrics.histogram(f"layerwire_{name}", operator=operator) for name in ("queue_seconds", "call_seconds")
        ]
        self.batches: list[tuple[float, float, float, int, int]] = []  # as _BATCH_HISTOGRAMS
        self.waits: list[tuple[float, float, int]] = []  # until launch and until the answer, and of how many calls

    def count(self) -> None:
        """Brings the histograms up to date."""
        for histogram, values in zip(self._batch_histograms, zip(*self.batches, strict=True), strict=False):
            histogram.observe_all(values)
        queue_histogram, call_histogram = self._call_histograms
        for queue_seconds, call_seconds, times in self.waits:
            queue_histogram.observe(queue_seconds, times)
            call_histogram.observe(call_seconds, times)
        self.batches.clear()
        self.waits.clear()


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
        metrics.add_source(self._count)

    def count_batch(self, batch: Batch[CallGroup], launch_time: float, execution: Execution) -> None:
        """A batch ran and its answers are on their way."""
        plan = batch.calls[0].plan
        metrics: _OperatorMetrics | None = plan.metrics
        if metrics is None:
            metrics = plan.metrics = self._operator_metrics(_label(batch.calls[0]))
        metrics.batches.append((*execution.phases, batch.call_count, batch.rows))
        now = time.monotonic()
        times, arrival_time, successes = 0, batch.calls[0].arrival_time, 0  # of calls that arrived together
        for call, result in zip(batch.calls, execution.results, strict=True):
            if isinstance(result, LayerwireError):
                continue
            successes += call.count
            if call.arrival_time != arrival_time:  # calls of one frame share it: one observation for all
                metrics.waits.append((launch_time - arrival_time, now - arrival_time, times))
                times, arrival_time = 0, call.arrival_time
            times += call.count
        if times:
            metrics.waits.append((launch_time - arrival_time, now - arrival_time, times))
        metrics.calls.value += successes
        if len(metrics.batches) >= _MOST_UNCOUNTED:
            metrics.count()
        if batch.calls[0].model is not None:
            self.model_statistics.count_batch(batch, launch_time, now, execution, time.time())

    def count_close(self, batch: Batch[CallGroup]) -> None:
        """A batch was closed."""
        self._reasons[batch.reason].value += 1

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
            operator_metrics = self._operators[operator] = _OperatorMetrics(self._metrics, operator)
        return operator_metrics

    def _count(self) -> None:
        for operator_metrics in self._operators.values():
            operator_metrics.count()


def _label(call: CallGroup) -> str:
    """What it is counted under."""
    operator = call.plan.operator
    return KINDS[operator.family].label(operator)
