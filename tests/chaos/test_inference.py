"""The Open Inference Protocol with several workers, and with workers that die."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from layerwire.inference_v2 import open_inference_pb2 as oip
from tests.chaos.conftest import FaultyServer
from tests.served import PATIENCE_SECONDS, Server
from tests.through_server.inference import programs
from tests.through_server.inference.conftest import SERVICE
from tests.through_server.inference.messages import floats, infer

REQUESTS = 400


def request(number: int) -> oip.ModelInferRequest:
    return infer("linear", {"x": np.full((1, programs.FEATURES), number, np.float32)}, id=str(number))


def is_right(answer: oip.ModelInferResponse) -> bool:
    x = np.full((1, programs.FEATURES), int(answer.id), np.float32)
    return np.allclose(floats(answer)["y"], programs.expected(x), rtol=1e-5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of two workers, with programs in its store."""
    folder = tmp_path_factory.mktemp("two")
    server = FaultyServer(folder, "--workers", "2", "--threads", "1", "--store", str(folder / "store"))
    programs.put(server.address)
    yield server
    server.close()


def test_statistics_are_those_of_all_workers(server: Server) -> None:
    with grpc.insecure_channel(server.address) as channel, ThreadPoolExecutor(16) as pool:
        method = channel.unary_unary(
            SERVICE + "ModelInfer", oip.ModelInferRequest.SerializeToString, oip.ModelInferResponse.FromString
        )
        ask = channel.unary_unary(
            SERVICE + "ModelStatistics",
            oip.ModelStatisticsRequest.SerializeToString,
            oip.ModelStatisticsResponse.FromString,
        )

        def statistics() -> oip.ModelStatistics:
            (model,) = ask(oip.ModelStatisticsRequest(name="linear", version="1"), timeout=PATIENCE_SECONDS).model_stats
            return model

        before = statistics()
        answers = list(pool.map(lambda number: method(request(number), timeout=PATIENCE_SECONDS), range(REQUESTS)))
        after = statistics()
    assert all(map(is_right, answers))
    assert after.inference_count == after.inference_stats.success.count == before.inference_count + REQUESTS
    assert sum(size.compute_infer.count for size in after.batch_stats) == after.execution_count
    assert sum(size.batch_size * size.compute_infer.count for size in after.batch_stats) == after.inference_count


def test_killed_workers_cost_a_stream_no_answer(server: Server) -> None:
    answers: list[oip.ModelStreamInferResponse] = []
    came = threading.Condition()

    def requests() -> Iterator[oip.ModelInferRequest]:
        for number in range(REQUESTS):
            if number == 240:  # what the first death interrupted is over: a call that sees two is blamed for them
                with came:
                    came.wait_for(lambda: len(answers) == 240, PATIENCE_SECONDS)
            if number in (100, 250):
                os.kill(server.pids("worker")[0], signal.SIGKILL)
            yield request(number)

    with grpc.insecure_channel(server.address) as channel:
        stream = channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            oip.ModelInferRequest.SerializeToString,
            oip.ModelStreamInferResponse.FromString,
        )(requests(), timeout=PATIENCE_SECONDS)
        for answer in stream:
            with came:
                answers.append(answer)
                came.notify_all()
    assert not [answer.error_message for answer in answers if answer.error_message]
    assert sorted(int(answer.infer_response.id) for answer in answers) == list(range(REQUESTS))
    assert all(is_right(answer.infer_response) for answer in answers)
