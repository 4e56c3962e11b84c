"""Streams of tritonclient.grpc.InferenceServerClient."""

from __future__ import annotations

import os
import queue

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.through_server.inference.programs import FEATURES, expected

ADDRESS = os.environ["LAYERWIRE_TEST_ADDRESS"]


@pytest.fixture
def client():
    with triton.InferenceServerClient(ADDRESS) as connected:
        yield connected


@pytest.fixture
def answers(client):
    """A stream's answers, as pairs of result and error."""
    results = queue.SimpleQueue()
    client.start_stream(callback=lambda result, error: results.put((result, error)))
    return lambda: results.get(timeout=300)


def tensor_of(array):
    tensor = triton.InferInput("x", array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def test_many_in_flight(client, answers):
    for number in range(300):
        x = np.full((1, FEATURES), number, np.float32)
        client.async_stream_infer("linear", [tensor_of(x)], request_id=str(number))
    seen = set()
    for _ in range(300):
        result, error = answers()
        assert error is None
        number = int(result.get_response().id)
        seen.add(number)
        x = np.full((1, FEATURES), number, np.float32)
        np.testing.assert_allclose(result.as_numpy("y"), expected(x), rtol=1e-5)
    assert seen == set(range(300))
    client.stop_stream()


def test_errors_are_a_requests_own(client, answers):
    x = np.ones((1, FEATURES), np.float32)
    client.async_stream_infer("linear", [tensor_of(x[:, 1:])])
    result, error = answers()
    assert result is None
    assert "x must have shape [-1, 6], got [1, 5]" in error.message()
    client.async_stream_infer("linear", [tensor_of(x)])
    assert answers()[1] is None
    client.stop_stream()


@pytest.mark.parametrize("empty", [False, True])
def test_every_answer_is_final(client, answers, empty):
    x = np.ones((1, FEATURES), np.float32)
    client.async_stream_infer("linear", [tensor_of(x)], enable_empty_final_response=empty, request_id="one")
    result, error = answers()
    assert error is None
    assert result.get_response().parameters["triton_final_response"].bool_param
    client.async_stream_infer("linear", [tensor_of(x)], request_id="two")
    assert answers()[0].get_response().id == "two", "no empty answer came after the first"
    client.stop_stream()


def test_leaving_with_requests_in_flight(client, answers):
    for _ in range(4):
        client.async_stream_infer("long", [tensor_of(np.eye(256, dtype=np.float32))])
    client.stop_stream(cancel_requests=True)
    assert client.infer("linear", [tensor_of(np.ones((1, FEATURES), np.float32))]).as_numpy("y").shape == (1, 3)
