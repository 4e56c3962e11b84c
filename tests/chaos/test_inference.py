"""The Open Inference Protocol with several workers, and with workers that die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from layerwire.inference_v2 import open_inference_pb2 as oip
from tests.inference import programs
from tests.inference.conftest import SERVICE
from tests.inference.messages import floats, infer
from tests.served import PATIENCE_SECONDS, Server

Start = Callable[..., Server]
REQUESTS = 400


def request(number: int) -> oip.ModelInferRequest:
    return infer("linear", {"x": np.full((1, programs.FEATURES), number, np.float32)}, id=str(number))


def is_right(answer: oip.ModelInferResponse) -> bool:
    x = np.full((1, programs.FEATURES), int(answer.id), np.float32)
    return np.allclose(floats(answer)["y"], programs.expected(x), rtol=1e-5)


def test_statistics_are_those_of_all_workers(start: Start, tmp_path: Path) -> None:
    server = start("--workers", "2", "--threads", "1", "--store", str(tmp_path / "store"))
    programs.put(server.address)
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(16) as pool:
        method = channel.unary_unary(
            SERVICE + "ModelInfer", oip.ModelInferRequest.SerializeToString, oip.ModelInferResponse.FromString
        )
        answers = list(pool.map(lambda number: method(request(number), timeout=PATIENCE_SECONDS), range(REQUESTS)))
        statistics = channel.unary_unary(
            SERVICE + "ModelStatistics",
            oip.ModelStatisticsRequest.SerializeToString,
            oip.ModelStatisticsResponse.FromString,
        )(oip.ModelStatisticsRequest(name="linear", version="1"), timeout=PATIENCE_SECONDS)
    assert all(map(is_right, answers))
    (found,) = statistics.model_stats
    assert found.inference_count == found.inference_stats.success.count == REQUESTS
    assert sum(size.compute_infer.count for size in found.batch_stats) == found.execution_count
    assert sum(size.batch_size * size.compute_infer.count for size in found.batch_stats) == REQUESTS


def test_killed_workers_cost_a_stream_no_answer(start: Start, tmp_path: Path) -> None:
    server = start("--workers", "2", "--threads", "1", "--store", str(tmp_path / "store"))
    programs.put(server.address)

    def requests() -> Iterator[oip.ModelInferRequest]:
        for number in range(REQUESTS):
            if number in (100, 250):
                os.kill(server.pids("worker")[0], signal.SIGKILL)
            yield request(number)

    with grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            oip.ModelInferRequest.SerializeToString,
            oip.ModelStreamInferResponse.FromString,
        )(requests(), timeout=PATIENCE_SECONDS)
        answers = list(stream)
    assert not [answer.error_message for answer in answers if answer.error_message]
    assert sorted(int(answer.infer_response.id) for answer in answers) == list(range(REQUESTS))
    assert all(is_right(answer.infer_response) for answer in answers)
