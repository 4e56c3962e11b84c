"""ModelStatistics of a whole server: every worker is asked for its own, and they are summed.

It knows workers' answers; nothing of what they count.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from layerwire.errors import UnavailableError
from layerwire.inference_v2.open_inference_pb2 import ModelStatistics, ModelStatisticsResponse
from layerwire_server.gateway.refusal import RefusedError
from layerwire_server.gateway.rpc import Context, Services, WorkerRpc
from layerwire_server.gateway.workers import Workers
from layerwire_server.link import Family, Flag, Frame, Kind


class StatisticsRpc(WorkerRpc):
    """The RPC."""

    def __init__(self, services: Services, workers: Workers) -> None:
        super().__init__("ModelStatistics", Family.MODEL_STATISTICS, services)
        self._workers = workers

    async def work(self, payload: bytes, context: Context, number: int) -> bytes:
        """See WorkerRpc."""
        frame = Frame(Kind.UNARY, payload=payload, family=self.family, arrived=time.monotonic())
        answers = [answer for answer in await self._workers.ask_all(frame) if answer is not None]
        statistics = [bytes(answer.payload) for answer in answers if not answer.flags & Flag.ERROR]
        if statistics:
            return total(map(ModelStatisticsResponse.FromString, statistics)).SerializeToString()
        if answers:
            raise RefusedError(bytes(answers[0].payload))
        raise RefusedError(UnavailableError("the server has no worker now"))


def total(answers: Iterable[ModelStatisticsResponse]) -> ModelStatisticsResponse:
    """All workers' statistics as one."""
    totals: dict[tuple[str, str], ModelStatistics] = {}
    for answer in answers:
        for model in answer.model_stats:
            key = model.name, model.version
            if key in totals:
                _add(totals[key], model)
            else:
                totals[key] = model
    return ModelStatisticsResponse(model_stats=totals.values())


def _add(total: ModelStatistics, more: ModelStatistics) -> None:
    total.last_inference = max(total.last_inference, more.last_inference)
    total.inference_count += more.inference_count
    total.execution_count += more.execution_count
    _add_durations(total.inference_stats, more.inference_stats)
    sizes = {batch.batch_size: batch for batch in total.batch_stats}
    for batch in more.batch_stats:
        if batch.batch_size in sizes:
            _add_durations(sizes[batch.batch_size], batch)
        else:
            total.batch_stats.add().CopyFrom(batch)


def _add_durations(total: Any, more: Any) -> None:
    for field, duration in more.ListFields():
        if field.message_type is not None:
            mine = getattr(total, field.name)
            mine.count += duration.count
            mine.ns += duration.ns
