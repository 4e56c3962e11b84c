"""What a server of the Open Inference Protocol counted of models over a stretch of time, by ModelStatistics.

It knows the statistics extension of the protocol, which Triton has and Layerwire; neither load nor how the result is
shown.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable

from layerwire.errors import LayerwireError
from layerwire_bench.result import Phase, Server
from layerwire_bench.servers import rpc
from layerwire_bench.servers.inference import ask

_KEPT = 64  # readings; a measurement looks back over fewer
_MORE = 1.25
_SPARE_CALLS = 100
_DURATIONS = ("success", "queue", "compute_input", "compute_infer", "compute_output")


class StatisticsCounts:
    """Readings of models' statistics, and what happened between two of them.

    Args:
        address: of the server, "host:port".
        models: name and version of each that is sent; "" for all its versions.
    """

    def __init__(self, address: str, models: Iterable[tuple[str, str]]) -> None:
        self._address = address
        self._models = tuple(models)
        self._readings: OrderedDict[int, Counter[str]] = OrderedDict()
        self._marks = 0

    def check(self) -> None:
        """Asks, to see whether the server has such statistics.

        Raises:
            LayerwireError: it hasn't, or doesn't know a model.
        """
        with rpc.server(self._address) as server:
            _read(server, self._models)

    def mark(self) -> int:
        """Asks now; the number of this reading. One that fails is as if there were none."""
        self._marks += 1
        try:
            with rpc.server(self._address) as server:
                self._readings[self._marks] = _read(server, self._models)
        except LayerwireError:
            return self._marks
        if len(self._readings) > _KEPT:
            self._readings.popitem(last=False)
        return self._marks

    def between(self, first: int, last: int, calls: int) -> Server | None:
        """What the server counted between two readings, in which the client had so many answers; None if one failed."""
        if first not in self._readings or last not in self._readings:
            return None
        before, after = self._readings[first], self._readings[last]
        anew = any(after[name] < count for name, count in before.items())
        grown = after if anew else Counter({name: count - before[name] for name, count in after.items()})
        batches = grown["batches"]
        names = ", ".join(name for name, _ in self._models)
        note = None
        if anew:
            note = "the server was started anew meanwhile, and what it had counted before is missing"
        elif grown["success.count"] > _MORE * calls + _SPARE_CALLS:
            note = f"others called at the same time: the server answered {grown['success.count']:,} calls"
        return Server(
            source=f"ModelStatistics of {names} at {self._address}",
            calls=grown["success.count"],
            queue=_phase(grown, "queue"),
            copy_in=_phase(grown, "compute_input"),
            kernel=_phase(grown, "compute_infer"),
            copy_out=_phase(grown, "compute_output"),
            batch_calls=grown["success.count"] / batches if batches else None,
            batch_rows=grown["rows"] / batches if batches else None,
            batch_closed={},
            rejected={},
            cpu_seconds={},
            note=note,
        )


def _read(server: rpc.Server, models: Iterable[tuple[str, str]]) -> Counter[str]:
    """All models' counts together; raises LayerwireError."""
    found: Counter[str] = Counter()
    for name, version in models:
        for told in ask(server, "ModelStatistics", name=name, version=version).model_stats:
            found["rows"] += told.inference_count
            found["batches"] += told.execution_count
            for duration in _DURATIONS:
                found[f"{duration}.count"] += getattr(told.inference_stats, duration).count
                found[f"{duration}.ns"] += getattr(told.inference_stats, duration).ns
    return found


def _phase(grown: Counter[str], name: str) -> Phase | None:
    count = grown[f"{name}.count"]
    return Phase(grown[f"{name}.ns"] / count * 1e-9) if count else None
