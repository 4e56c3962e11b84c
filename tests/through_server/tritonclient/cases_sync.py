"""tritonclient.grpc.InferenceServerClient."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tritonclient.grpc as triton
from ml_dtypes import bfloat16
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import layerwire
from tests.through_server.inference.programs import FEATURES, expected

ADDRESS = os.environ["LAYERWIRE_TEST_ADDRESS"]
X = np.arange(2 * FEATURES, dtype=np.float32).reshape(2, FEATURES)


@pytest.fixture
def client():
    with triton.InferenceServerClient(ADDRESS) as connected:
        yield connected


def tensor_of(array, name="x"):
    tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


def test_server_and_models(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("linear")
    assert client.is_model_ready("linear", "2")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata().name == "layerwire"
    assert list(client.get_model_metadata("linear").versions) == ["1", "2"]
    config = client.get_model_config("linear", as_json=True)["config"]
    assert config["max_batch_size"] == 4096
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["6"]}]
    assert {model.name for model in client.get_model_repository_index().models} > {"linear", "pair"}


@pytest.mark.parametrize(
    "dtype", [bool, "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", bfloat16]
)
def test_datatypes(client, dtype):
    array = (np.arange(6) % 2 if dtype is bool else np.arange(6)).reshape(3, 2).astype(dtype)
    output = client.infer(f"identity-{np.dtype(dtype).name}", [tensor_of(array)]).as_numpy("y")
    assert output.dtype == array.dtype
    assert output.tolist() == array.tolist()


def test_infer(client):
    answer = client.infer("linear", [tensor_of(X)], request_id="one", outputs=[triton.InferRequestedOutput("y")])
    np.testing.assert_allclose(answer.as_numpy("y"), expected(X), rtol=1e-6)
    response = answer.get_response()
    assert (response.id, response.model_name, response.model_version) == ("one", "linear", "1")


def test_infer_with_all_that_may_be_said(client):
    answer = client.infer(
        "linear", [tensor_of(X)], "2", priority=1, timeout=60_000_000, client_timeout=60.0, parameters={"mine": "x"}
    )
    np.testing.assert_allclose(answer.as_numpy("y"), expected(X, 2), rtol=1e-6)


def test_async_infer_of_many_threads_beside_native_calls(client):
    def both(number):
        x = np.full((1, FEATURES), number, np.float32)
        future = client.async_infer(
            "linear", [tensor_of(x)], callback=lambda result, error: done.append((result, error))
        )
        assert future is not None
        return lw.run("linear", {"x": x})["y"]

    done = []
    with layerwire.Client(ADDRESS) as lw, ThreadPoolExecutor(16) as pool:
        natives = list(pool.map(both, range(64)))
        while len(done) < 64:
            client.is_server_live()
    assert not [error for _, error in done if error is not None]
    scores = sorted(result.as_numpy("y").sum() for result, _ in done)
    np.testing.assert_allclose(scores, sorted(native.sum() for native in natives), rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model_name": "nothing"}, "StatusCode.NOT_FOUND"),
        ({"model_version": "7"}, "StatusCode.NOT_FOUND"),
        ({"model_version": "x"}, "StatusCode.INVALID_ARGUMENT"),
        ({"inputs": []}, "StatusCode.INVALID_ARGUMENT"),
        ({"inputs": [tensor_of(X[:, 1:])]}, "StatusCode.INVALID_ARGUMENT"),
        ({"inputs": [tensor_of(np.array([[b"text"]], object))]}, "StatusCode.INVALID_ARGUMENT"),
        (
            {"timeout": 1, "model_name": "long", "inputs": [tensor_of(np.eye(256, dtype=np.float32))]},
            "DEADLINE_EXCEEDED",
        ),
        ({"outputs": [triton.InferRequestedOutput("z")]}, "StatusCode.INVALID_ARGUMENT"),
        ({"outputs": [triton.InferRequestedOutput("y", class_count=2)]}, "StatusCode.UNIMPLEMENTED"),
    ],
    ids=["model", "version", "no version", "no input", "shape", "BYTES", "timeout", "output", "classes"],
)
def test_errors(client, fields, status):
    with pytest.raises(InferenceServerException) as caught:
        client.infer(**({"model_name": "linear", "inputs": [tensor_of(X)]} | fields))
    assert status in caught.value.status()


def test_shared_memory_is_not_served(client):
    tensor = triton.InferInput("x", X.shape, "FP32")
    tensor.set_shared_memory("mine", X.nbytes)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("linear", [tensor])
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
    with pytest.raises(InferenceServerException) as caught:
        client.register_system_shared_memory("mine", "/mine", 48)
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_statistics(client):
    def count():
        return client.get_inference_statistics("linear", "1").model_stats[0]

    before = count()
    client.infer("linear", [tensor_of(X)])
    after = count()
    assert after.inference_count - before.inference_count == 2
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
