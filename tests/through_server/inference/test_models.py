"""What the protocol tells of models, and the statistics of their calls, native ones included."""

from __future__ import annotations

import time

import numpy as np
import pytest
from grpc import RpcError, StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from layerwire.inference_v2 import open_inference_pb2 as oip
from tests.through_server.inference.messages import NAMES, infer
from tests.through_server.inference.programs import DTYPES, FEATURES, PROGRAMS

X = np.ones((3, FEATURES), np.float32)


def counts(ask, name, version="1"):
    (statistics,) = ask("ModelStatistics", name=name, version=version).model_stats
    return statistics


def test_the_server_is_live_and_ready(ask, channel):
    assert ask("ServerLive").live
    assert ask("ServerReady").ready
    check = health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService")
    assert health_pb2_grpc.HealthStub(channel).Check(check).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("linear", "", True), ("linear", "2", True), ("linear", "3", False), ("nothing", "", False), ("", "", False)],
)
def test_models_are_ready_if_they_are_there(ask, name, version, ready):
    assert ask("ModelReady", name=name, version=version).ready is ready


def test_server_metadata(ask):
    metadata = ask("ServerMetadata")
    assert metadata.name == "layerwire"
    assert set(metadata.extensions) == {"model_configuration", "schedule_policy", "statistics"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_metadata_and_configuration_name_the_datatype(ask, dtype):
    metadata = ask("ModelMetadata", name=f"identity-{dtype}")
    config = ask("ModelConfig", name=f"identity-{dtype}").config
    for tensor, side in ((metadata.inputs[0], config.input[0]), (metadata.outputs[0], config.output[0])):
        assert (tensor.datatype, list(tensor.shape)) == (NAMES[dtype], [-1, 2])
        assert (oip.DataType.Name(side.data_type), list(side.dims)) == (f"TYPE_{NAMES[dtype]}", [2])


def test_metadata_of_a_model(ask):
    metadata = ask("ModelMetadata", name="linear", version="2")
    assert (metadata.name, list(metadata.versions), metadata.platform) == ("linear", ["1", "2"], "layerwire_program")
    assert [(tensor.name, list(tensor.shape)) for tensor in metadata.inputs] == [("x", [-1, 6])]
    assert [(tensor.name, list(tensor.shape)) for tensor in metadata.outputs] == [("y", [-1, 3])]


def test_configuration_of_calls_that_are_joined(ask):
    config = ask("ModelConfig", name="linear").config
    assert (config.max_batch_size, config.backend) == (4096, "layerwire")
    assert (config.dynamic_batching.priority_levels, config.dynamic_batching.default_priority_level) == (21, 11)
    assert config.version_policy.HasField("all")


def test_configuration_of_calls_that_are_not(ask):
    config = ask("ModelConfig", name="short").config
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [256, 256]


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelConfig", "ModelStatistics"])
@pytest.mark.parametrize("fields", [{"name": "nothing"}, {"name": "linear", "version": "9"}])
def test_unknown_models(ask, method, fields):
    with pytest.raises(RpcError) as caught:
        ask(method, **fields)
    assert caught.value.code() is StatusCode.NOT_FOUND


def test_the_index_has_every_version(ask, client):
    """Those that other tests put there included."""
    models = ask("RepositoryIndex").models
    index = {(model.name, model.version) for model in models}
    assert len(index) == len(models)
    assert index == {(program.name, str(one.version)) for program in client.programs() for one in program.versions}
    assert {(name, version) for name, version in index if name in PROGRAMS} == {
        (name, str(number)) for name, versions in PROGRAMS.items() for number in range(1, len(versions) + 1)
    }
    assert {model.state for model in models} == {"READY"}


def test_statistics_of_all_models(ask):
    assert len(ask("ModelStatistics").model_stats) == len(ask("RepositoryIndex").models)


@pytest.mark.parametrize("native", [False, True], ids=["protocol", "native"])
def test_statistics_count_rows_requests_and_batches(ask, client, native):
    before, began = counts(ask, "linear"), time.time()
    for _ in range(4):
        if native:
            client.run("linear", {"x": X})
        else:
            ask("ModelInfer", infer("linear", {"x": X}))
    after = counts(ask, "linear")
    assert after.inference_count - before.inference_count == 12
    assert after.execution_count - before.execution_count == 4
    assert began * 1e3 - 1 <= after.last_inference <= time.time() * 1e3
    stats, earlier = after.inference_stats, before.inference_stats
    names = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    for name in names:
        assert getattr(stats, name).count - getattr(earlier, name).count == 4, name
    taken = {name: getattr(stats, name).ns - getattr(earlier, name).ns for name in names}
    assert 0 < taken["compute_infer"] < taken["success"]
    assert sum(taken.values()) - taken["success"] <= taken["success"]
    size = {batch.batch_size: batch.compute_infer.count for batch in after.batch_stats}
    size_before = {batch.batch_size: batch.compute_infer.count for batch in before.batch_stats}
    assert size[3] - size_before.get(3, 0) == 4
    assert sum(size.values()) == after.execution_count


def test_versions_count_for_themselves(ask):
    before = counts(ask, "linear", "1")
    ask("ModelInfer", infer("linear", {"x": X}, model_version="2"))
    assert counts(ask, "linear", "1") == before


def test_wrong_requests_are_in_no_statistics(ask):
    before = counts(ask, "linear")
    with pytest.raises(RpcError):
        ask("ModelInfer", infer("linear", {"z": X}))
    assert counts(ask, "linear") == before
