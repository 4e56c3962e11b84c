"""Counts and times of calls by model and version, as the Open Inference Protocol reports them.

It knows calls and batches; nothing of messages' transport or of the store. They live as long as the worker does.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from layerwire.errors import LayerwireError
from layerwire.inference_v2 import open_inference_pb2
from layerwire_server.programs.run import Run
from layerwire_server.worker.call import CallGroup, Model
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.running.device import Phases
from layerwire_server.worker.running.execution import Execution

_MODELS = 8192  # deleted ones are among them; those called longest ago are forgotten first
_SIZES = 1024  # of batches, counted apart for one model; more are counted with the next power of two


@dataclass(slots=True)
class _PhaseTotals:
    """How often, and how long in each phase."""

    count: int = 0
    copy_in_seconds: float = 0.0
    kernel_seconds: float = 0.0
    copy_out_seconds: float = 0.0

    def add(self, phases: Phases, times: int = 1) -> None:
        """It happened so often, each time with these phases."""
        self.count += times
        self.copy_in_seconds += phases.copy_in_seconds * times
        self.kernel_seconds += phases.kernel_seconds * times
        self.copy_out_seconds += phases.copy_out_seconds * times


@dataclass(slots=True)
class _ModelTotals:
    last_answer_seconds: float = 0.0  # since 1970
    rows: int = 0
    batches: int = 0
    answer_seconds: float = 0.0
    queue_seconds: float = 0.0
    failures: int = 0
    failure_seconds: float = 0.0
    calls: _PhaseTotals = field(default_factory=_PhaseTotals)
    sizes: dict[int, _PhaseTotals] = field(default_factory=dict)

    def size(self, rows: int) -> _PhaseTotals:
        """Batches of so many rows."""
        if rows not in self.sizes and len(self.sizes) >= _SIZES:
            rows = 1 << (rows - 1).bit_length()
        return self.sizes.setdefault(rows, _PhaseTotals())


class ModelCounters:
    """The statistics of a worker. Time is an argument."""

    def __init__(self) -> None:
        self._models: OrderedDict[Model, _ModelTotals] = OrderedDict()

    def count_batch(
        self, batch: Batch[CallGroup], launch_time: float, answer_time: float, execution: Execution, wall_time: float
    ) -> None:
        """A batch of a program's calls ran.

        Args:
            batch: it.
            launch_time: when, in seconds of CLOCK_MONOTONIC.
            answer_time: when its answers left, likewise.
            execution: what became of it.
            wall_time: the time of day, in seconds since 1970.
        """
        phases = execution.phases
        size = sum(map(_rows, batch.calls))
        successes: Counter[Model] = Counter()
        for call, result in zip(batch.calls, execution.results, strict=True):
            if call.model is None or isinstance(result, LayerwireError):
                continue
            totals = self._totals(call.model)
            totals.rows += _rows(call)
            totals.answer_seconds += (answer_time - call.arrival_time) * call.count
            totals.queue_seconds += max(launch_time - call.arrival_time, 0.0) * call.count
            successes[call.model] += call.count
        for model, calls in successes.items():
            totals = self._totals(model)
            totals.last_answer_seconds = wall_time
            totals.batches += 1
            totals.calls.add(phases, calls)
            totals.size(size).add(phases)

    def count_failure(self, call: CallGroup, now: float) -> None:
        """Calls that were found to be right failed, expired, were given up, or found the queue full."""
        if call.model is not None:
            totals = self._totals(call.model)
            totals.failures += call.count
            totals.failure_seconds += (now - call.arrival_time) * call.count

    def of(self, name: str, version: int) -> open_inference_pb2.ModelStatistics:
        """What there is of a model; zeros if it wasn't called."""
        model = Model(name, version)
        return _message(model, self._models.get(model) or _ModelTotals())

    def _totals(self, model: Model) -> _ModelTotals:
        totals = self._models.get(model)
        if totals is None:
            totals = self._models[model] = _ModelTotals()
            if len(self._models) > _MODELS:
                self._models.popitem(last=False)
        else:
            self._models.move_to_end(model)
        return totals


def _rows(call: CallGroup) -> int:
    """Rows of calls, however they were batched; 1 each of a program whose calls can't be joined."""
    operator, spec = call.plan.operator, call.plan.specs[0]
    assert isinstance(operator, Run)
    return call.count * (spec.shape[0] if spec is not None and operator.variant.batched else 1)


def _message(model: Model, totals: _ModelTotals) -> open_inference_pb2.ModelStatistics:
    calls = totals.calls
    return open_inference_pb2.ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=int(totals.last_answer_seconds * 1e3),
        inference_count=totals.rows,
        execution_count=totals.batches,
        inference_stats=open_inference_pb2.InferStatistics(
            success=_duration(calls.count, totals.answer_seconds),
            fail=_duration(totals.failures, totals.failure_seconds),
            queue=_duration(calls.count, totals.queue_seconds),
            compute_input=_duration(calls.count, calls.copy_in_seconds),
            compute_infer=_duration(calls.count, calls.kernel_seconds),
            compute_output=_duration(calls.count, calls.copy_out_seconds),
        ),
        batch_stats=[
            open_inference_pb2.InferBatchStatistics(
                batch_size=rows,
                compute_input=_duration(size.count, size.copy_in_seconds),
                compute_infer=_duration(size.count, size.kernel_seconds),
                compute_output=_duration(size.count, size.copy_out_seconds),
            )
            for rows, size in sorted(totals.sizes.items())
        ],
    )


def _duration(count: int, seconds: float) -> open_inference_pb2.StatisticDuration:
    return open_inference_pb2.StatisticDuration(count=count, ns=max(int(seconds * 1e9), 0))
