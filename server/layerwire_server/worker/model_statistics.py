"""Counts and times of programs' calls by name and version, as the Open Inference Protocol tells them.

It knows calls and batches; nothing of messages' transport or of the store. They live as long as the worker does.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from layerwire.errors import LayerwireError
from layerwire.inference_v2 import open_inference_pb2
from layerwire_server.programs.run import Run
from layerwire_server.worker.call import Call, Model
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.running.device import Phases
from layerwire_server.worker.running.execution import Execution

_MODELS = 8192  # deleted ones are among them; those called longest ago are forgotten first
_SIZES = 1024  # of batches, told apart for one model; more are counted with the next power of two


@dataclass(slots=True)
class _Phased:
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
class _OfModel:
    last_answered_seconds: float = 0.0  # since 1970
    rows: int = 0
    batches: int = 0
    answered_seconds: float = 0.0
    queue_seconds: float = 0.0
    failed: int = 0
    failed_seconds: float = 0.0
    calls: _Phased = field(default_factory=_Phased)
    sizes: dict[int, _Phased] = field(default_factory=dict)

    def size(self, rows: int) -> _Phased:
        """Batches of so many rows."""
        if rows not in self.sizes and len(self.sizes) >= _SIZES:
            rows = 1 << (rows - 1).bit_length()
        return self.sizes.setdefault(rows, _Phased())


class Statistics:
    """The statistics of a worker. Time is an argument."""

    def __init__(self) -> None:
        self._models: OrderedDict[Model, _OfModel] = OrderedDict()

    def ran(self, batch: Batch[Call], launched: float, answered: float, execution: Execution, wall: float) -> None:
        """A batch of a program's calls ran.

        Args:
            batch: it.
            launched: when, in seconds of CLOCK_MONOTONIC.
            answered: when its answers left, likewise.
            execution: what became of it.
            wall: the time of day, in seconds since 1970.
        """
        phases = execution.phases
        size = sum(map(_rows, batch.calls))
        well: Counter[Model] = Counter()
        for call, result in zip(batch.calls, execution.results, strict=True):
            if call.model is None or isinstance(result, LayerwireError):
                continue
            of = self._of(call.model)
            of.rows += _rows(call)
            of.answered_seconds += answered - call.arrived
            of.queue_seconds += max(launched - call.arrived, 0.0)
            well[call.model] += 1
        for model, calls in well.items():
            of = self._of(model)
            of.last_answered_seconds = wall
            of.batches += 1
            of.calls.add(phases, calls)
            of.size(size).add(phases)

    def failed(self, call: Call, now: float) -> None:
        """A call that was found to be right failed, expired, was given up, or found the queue full."""
        if call.model is not None:
            of = self._of(call.model)
            of.failed += 1
            of.failed_seconds += now - call.arrived

    def of(self, name: str, version: int) -> open_inference_pb2.ModelStatistics:
        """What there is of a model; zeros if it wasn't called."""
        model = Model(name, version)
        found = self._models.get(model) or _OfModel()
        return _told(model, found)

    def _of(self, model: Model) -> _OfModel:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = _OfModel()
            if len(self._models) > _MODELS:
                self._models.popitem(last=False)
        else:
            self._models.move_to_end(model)
        return found


def _rows(call: Call) -> int:
    """Rows of a call, however it was batched; 1 of a program whose calls can't be joined."""
    operator, spec = call.plan.operator, call.plan.specs[0]
    assert isinstance(operator, Run)
    return spec.shape[0] if spec is not None and operator.variant.batched else 1


def _told(model: Model, of: _OfModel) -> open_inference_pb2.ModelStatistics:
    calls = of.calls
    return open_inference_pb2.ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=int(of.last_answered_seconds * 1e3),
        inference_count=of.rows,
        execution_count=of.batches,
        inference_stats=open_inference_pb2.InferStatistics(
            success=_duration(calls.count, of.answered_seconds),
            fail=_duration(of.failed, of.failed_seconds),
            queue=_duration(calls.count, of.queue_seconds),
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
            for rows, size in sorted(of.sizes.items())
        ],
    )


def _duration(count: int, seconds: float) -> open_inference_pb2.StatisticDuration:
    return open_inference_pb2.StatisticDuration(count=count, ns=max(int(seconds * 1e9), 0))
