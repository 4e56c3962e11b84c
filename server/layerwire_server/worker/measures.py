"""What a worker counts and times of its calls and batches.

It knows the table of metrics, calls and batches; it decides nothing.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from layerwire.errors import LayerwireError
from layerwire_server.errors import OverLimitError
from layerwire_server.metrics import Counter, Histogram, Metrics
from layerwire_server.operators import OPERATORS
from layerwire_server.operators.operator import Operator
from layerwire_server.worker.call import Call
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.model_statistics import Statistics
from layerwire_server.worker.running.execution import Execution

# An error's operator comes from arguments, so it is looked up before it becomes a label.
_TITLES = frozenset(
    f"{name}{dims}" for family in OPERATORS.values() for name in family for dims in ("", "1d", "2d", "3d")
) | {"run", "differentiate", "infer"}

_OF_LANES = {"calls": "queue_calls", "bytes": "queue_bytes"}  # Full.reason -> reason of layerwire_rejected_total


class _OfOperator(NamedTuple):
    answered: Counter
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
        statistics: those of programs by name.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.statistics = Statistics()
        self._metrics = metrics
        self._operators: dict[str, _OfOperator] = {}
        self._rejections = metrics.rejections("worker")
        self._reasons = {
            reason: metrics.counter("layerwire_batch_closed_total", reason=reason)
            for reason in ("drained", "rows", "bytes", "cost", "single")
        }

    def ran(self, batch: Batch[Call], launched: float, execution: Execution) -> None:
        """A batch ran and its answers are on their way."""
        of = self._of(_label(batch.calls[0].plan.operator))
        phases = execution.phases
        of.copy_in_seconds.observe(phases.copy_in_seconds)
        of.kernel_seconds.observe(phases.kernel_seconds)
        of.copy_out_seconds.observe(phases.copy_out_seconds)
        of.batch_calls.observe(len(batch.calls))
        of.batch_rows.observe(batch.rows)
        answered = time.monotonic()
        times, arrived, well = 0, batch.calls[0].arrived, 0
        for call, result in zip(batch.calls, execution.results, strict=True):
            if isinstance(result, LayerwireError):
                continue
            well += 1
            if call.arrived != arrived:  # calls of one frame share their arrival: one observation for all
                of.queue_seconds.observe(launched - arrived, times)
                of.call_seconds.observe(answered - arrived, times)
                times, arrived = 0, call.arrived
            times += 1
        if times:
            of.queue_seconds.observe(launched - arrived, times)
            of.call_seconds.observe(answered - arrived, times)
        of.answered.add(well)
        if batch.calls[0].model is not None:
            self.statistics.ran(batch, launched, answered, execution, time.time())

    def closed(self, batch: Batch[Call]) -> None:
        """A batch was closed."""
        self._reasons[batch.reason].add()

    def failed(self, call: Call | None, error: LayerwireError) -> None:
        """A call ended with an error."""
        operator = _label(call.plan.operator) if call is not None else error.operator
        operator = operator if operator in _TITLES else "unknown"
        self._metrics.counter("layerwire_calls_total", operator=operator, code=error.code.name).add()
        if call is not None:
            self.statistics.failed(call, time.monotonic())
        if isinstance(error, OverLimitError):
            self._rejections[error.reason].add()

    def rejected(self, reason: str) -> None:
        """A call was turned away: by `Full.reason` of the lanes, or "quarantined"."""
        self._rejections[_OF_LANES.get(reason, reason)].add()

    def _of(self, operator: str) -> _OfOperator:
        found = self._operators.get(operator)
        if found is None:
            metrics = self._metrics
            names = _OfOperator._fields[1:]
            histograms = {name: metrics.histogram(f"layerwire_{name}", operator=operator) for name in names}
            answered = metrics.counter("layerwire_calls_total", operator=operator, code="OK")
            found = self._operators[operator] = _OfOperator(answered, **histograms)
        return found


def _label(operator: Operator) -> str:
    """What its counts stand under: programs and gradients each under one name, whatever they are of."""
    return operator.family if operator.family in ("run", "differentiate") else operator.title
