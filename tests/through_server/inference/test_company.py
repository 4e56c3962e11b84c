"""Many requests at once: with native calls in one batch, in streams, late, and given up."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from grpc import RpcError, StatusCode

from layerwire.inference_v2 import open_inference_pb2 as oip
from tests.served import PATIENCE_SECONDS
from tests.through_server.inference.conftest import SERVICE
from tests.through_server.inference.messages import floats, infer, parameter
from tests.through_server.inference.programs import FEATURES, expected

X = np.ones((1, FEATURES), np.float32)
EYE = np.eye(256, dtype=np.float32)
CALLERS, ROUNDS = 32, 20


def counts(ask, name):
    (statistics,) = ask("ModelStatistics", name=name, version="1").model_stats
    return statistics


class Conversation:
    """A stream, written and read as a test likes."""

    def __init__(self, channel):
        self._requests = queue.SimpleQueue()
        method = channel.stream_stream(
            SERVICE + "ModelStreamInfer",
            oip.ModelInferRequest.SerializeToString,
            oip.ModelStreamInferResponse.FromString,
        )
        self.call = method(iter(self._requests.get, None), timeout=PATIENCE_SECONDS)

    def send(self, *requests):
        for request in requests:
            self._requests.put(request)

    def read(self):
        return next(self.call)

    def end(self):
        self._requests.put(None)
        return list(self.call)


def long(number="", **fields):
    return infer("long", {"x": EYE}, id=number, **fields)


def test_callers_of_both_kinds_get_their_own_answers_from_shared_batches(ask, client):
    """32 callers, half of them native: fewer batches than requests, and everybody's own rows come back."""
    before = counts(ask, "linear")
    barrier = threading.Barrier(CALLERS)

    def call(number):
        barrier.wait(PATIENCE_SECONDS)
        rows = 1 + number % 3
        for turn in range(ROUNDS):
            x = np.full((rows, FEATURES), number + turn / 8, np.float32)
            if number % 2:
                y = client.run("linear", {"x": x})["y"]
            else:
                y = floats(ask("ModelInfer", infer("linear", {"x": x})))["y"]
            np.testing.assert_allclose(y, expected(x), rtol=1e-5)
        return rows * ROUNDS

    with ThreadPoolExecutor(CALLERS) as pool:
        rows = sum(pool.map(call, range(CALLERS)))
    after = counts(ask, "linear")
    assert after.inference_count - before.inference_count == rows
    assert after.inference_stats.success.count - before.inference_stats.success.count == CALLERS * ROUNDS
    assert after.execution_count - before.execution_count < CALLERS * ROUNDS / 2
    assert max(batch.batch_size for batch in after.batch_stats) > 3, "more rows than any request has"


def test_a_stream_answers_all_with_their_ids(channel):
    it = Conversation(channel)
    it.send(*(infer("linear", {"x": X * number}, id=str(number)) for number in range(200)))
    answers = [message.infer_response for message in it.end()]
    assert sorted(int(answer.id) for answer in answers) == list(range(200))
    for answer in answers:
        np.testing.assert_allclose(floats(answer)["y"], expected(X * int(answer.id)), rtol=1e-5)
        assert answer.parameters["triton_final_response"].bool_param
    assert it.call.code() is StatusCode.OK


def test_what_is_done_first_is_answered_first_and_errors_end_no_stream(channel):
    it = Conversation(channel)
    wrong = infer("linear", {"x": X[:, 1:]}, id="wrong")
    it.send(long("long"), infer("nothing", {"x": X}, id="unknown"), wrong)
    messages = [it.read() for _ in range(2)]
    assert [message.infer_response.id for message in messages] == ["unknown", "wrong"]
    assert messages[0].error_message == "no program named 'nothing'"
    assert "x must have shape [-1, 6], got [1, 5]" in messages[1].error_message
    (last,) = it.end()
    assert (last.infer_response.id, last.error_message) == ("long", "")
    assert floats(last.infer_response)["y"].tolist() == EYE.tolist()


def test_a_request_that_waits_longer_than_its_timeout_ends(ask, channel):
    before = counts(ask, "long").inference_stats.fail.count
    it = Conversation(channel)
    it.send(long("first"), long("second", parameters={"timeout": parameter(1)}))
    message = it.read()
    assert message.infer_response.id == "second"
    assert "deadline passed before the call ran" in message.error_message
    assert [message.infer_response.id for message in it.end()] == ["first"]
    assert counts(ask, "long").inference_stats.fail.count == before + 1


def test_a_timeout_of_a_unary_request(ask):
    with pytest.raises(RpcError) as caught:
        ask("ModelInfer", long(parameters={"timeout": oip.InferParameter(uint64_param=1)}))
    assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED
    assert ask("ModelInfer", long(parameters={"timeout": parameter(0)})).outputs


def test_requests_of_a_client_that_leaves_are_given_up(ask, channel):
    before = counts(ask, "long").inference_stats
    it = Conversation(channel)
    it.send(*(long(str(number)) for number in range(4)), infer("nothing", {}))
    assert it.read().error_message, "so all others have reached the worker"
    it.call.cancel()
    after = before
    while after.fail.count + after.success.count < before.fail.count + before.success.count + 3:
        after = counts(ask, "long").inference_stats
    assert after.fail.count - before.fail.count >= 3
    assert ask("ModelInfer", infer("linear", {"x": X})).outputs


def test_a_call_that_is_cancelled_is_given_up(ask, channel):
    before = counts(ask, "long").inference_stats.fail.count
    it = Conversation(channel)
    it.send(*(long(str(number)) for number in range(8)), infer("nothing", {}))
    assert it.read().error_message, "so all others have reached the worker"
    other = Conversation(channel)
    other.send(long("late", parameters={"priority": parameter(21)}), infer("nothing", {}))
    assert other.read().error_message, "so the late one waits behind them"
    other.call.cancel()
    assert len(it.end()) == 8
    while counts(ask, "long").inference_stats.fail.count == before:
        pass
    assert counts(ask, "long").inference_stats.fail.count == before + 1
