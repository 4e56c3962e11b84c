"""tritonclient.grpc.aio.InferenceServerClient."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from tests.through_server.inference.programs import FEATURES, expected

ADDRESS = os.environ["LAYERWIRE_TEST_ADDRESS"]


def tensor_of(array):
    tensor = triton.InferInput("x", array.shape, "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def rows(number):
    return np.full((1 + number % 3, FEATURES), number, np.float32)


async def test_server_and_models():
    async with triton.InferenceServerClient(ADDRESS) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready("linear", "2")
        metadata = await client.get_model_metadata("linear")
        assert list(metadata.inputs[0].shape) == [-1, FEATURES]


async def test_infer_many_at_once():
    async with triton.InferenceServerClient(ADDRESS) as client:
        answers = await asyncio.gather(*(client.infer("linear", [tensor_of(rows(number))]) for number in range(100)))
    for number, answer in enumerate(answers):
        np.testing.assert_allclose(answer.as_numpy("y"), expected(rows(number)), rtol=1e-5)


async def test_errors():
    async with triton.InferenceServerClient(ADDRESS) as client:
        with pytest.raises(InferenceServerException) as caught:
            await client.infer("nothing", [tensor_of(rows(1))])
        assert caught.value.status() == "StatusCode.NOT_FOUND"


async def test_cancellation():
    async with triton.InferenceServerClient(ADDRESS) as client:
        tensor = tensor_of(np.eye(256, dtype=np.float32))
        task = asyncio.ensure_future(client.infer("long", [tensor]))
        assert await client.is_server_live()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.infer("linear", [tensor_of(rows(2))])).as_numpy("y").shape == (3, 3)


async def test_stream():
    async def requests():
        for number in range(50):
            name = "nothing" if number == 7 else "linear"
            yield {"model_name": name, "inputs": [tensor_of(rows(number))], "request_id": str(number)}

    outputs, failed = {}, []
    async with triton.InferenceServerClient(ADDRESS) as client:
        async for result, error in client.stream_infer(requests()):
            if error is None:
                outputs[int(result.get_response().id)] = result.as_numpy("y")
            else:
                failed.append(error.message())
    assert failed == ["no program named 'nothing'"]
    assert sorted(outputs) == [number for number in range(50) if number != 7]
    for number, scores in outputs.items():
        np.testing.assert_allclose(scores, expected(rows(number)), rtol=1e-5)
