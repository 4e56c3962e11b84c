"""What a server of the Open Inference Protocol counted of models over a stretch of time, by ModelStatistics.

It knows the statistics extension of the protocol, which Triton has and Layerwire; neither load nor how the result is
shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from layerwire.errors import LayerwireError
from layerwire_bench.result import Phase, Server
from layerwire_bench.servers import rpc
from layerwire_bench.servers.inference import ask
from layerwire_bench.servers.readings import MORE, SPARE_CALLS, STARTED_ANEW, Counters

_DURATIONS = ("success", "queue", "compute_input", "compute_infer", "compute_output")


class ModelCounters(Counters[Counter[str]]):
    """Models' statistics, all of them together.

    Args:
        address: of the server, "host:port".
        models: name and version of each that is sent; "" for all its versions.
    """

    def __init__(self, address: str, models: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self._address = address
        self._models = tuple(models)

    def read(self) -> Counter[str]:
        """The counts by name.

        Raises:
            LayerwireError: the server has no such statistics, or doesn't know a model.
        """
        counts: Counter[str] = Counter()
        with rpc.connect(self._address) as server:
            for name, version in self._models:
                for model in ask(server, "ModelStatistics", name=name, version=version).model_stats:
                    counts["rows"] += model.inference_count
                    counts["batches"] += model.execution_count
                    for duration in _DURATIONS:
                        counts[f"{duration}.count"] += getattr(model.inference_stats, duration).count
                        counts[f"{duration}.ns"] += getattr(model.inference_stats, duration).ns
        return counts

    def _read(self) -> Counter[str] | None:
        try:
            return self.read()
        except LayerwireError:
            return None

    def _growth(self, before: Counter[str], after: Counter[str], calls: int) -> Server:
        anew = any(after[name] < count for name, count in before.items())
        growth = after if anew else Counter({name: count - before[name] for name, count in after.items()})
        batches, successes = growth["batches"], growth["success.count"]
        note = None
        if anew:
            note = STARTED_ANEW
        elif successes > MORE * calls + SPARE_CALLS:
            note = f"others called at the same time: the server answered {successes:,} calls"
        return Server(
            source=f"ModelStatistics of {', '.join(name for name, _ in self._models)} at {self._address}",
            calls=successes,
            queue=_phase(growth, "queue"),
            copy_in=_phase(growth, "compute_input"),
            kernel=_phase(growth, "compute_infer"),
            copy_out=_phase(growth, "compute_output"),
            batch_calls=successes / batches if batches else None,
            batch_rows=growth["rows"] / batches if batches else None,
            batch_closed={},
            rejected={},
            cpu_seconds={},
            note=note,
        )


def _phase(growth: Counter[str], name: str) -> Phase | None:
    count = growth[f"{name}.count"]
    return Phase(growth[f"{name}.ns"] / count * 1e-9) if count else None
