"""Requests of the Open Inference Protocol as calls: their lanes, their priority, and what is counted of them."""

from __future__ import annotations

import asyncio
import math
import time
from pathlib import Path

import numpy as np
import pytest

from layerwire.errors import InternalError
from layerwire.inference_v2 import open_inference_pb2 as oip
from layerwire.v1 import layerwire_pb2
from layerwire.wire import arrays, dtypes
from layerwire.wire.dtypes import INFERENCE_NAMES, OF_INFERENCE
from layerwire_server.programs.check import ProgramLimits
from layerwire_server.programs.variant import Facts
from layerwire_server.storage import Store
from layerwire_server.worker.call import CallGroup, Model
from layerwire_server.worker.lanes.lane import Batch
from layerwire_server.worker.model_statistics import ModelCounters
from layerwire_server.worker.plan import CallLimits, Plans
from layerwire_server.worker.reading import parse_limits
from layerwire_server.worker.reading.decoder import CallDecoder
from layerwire_server.worker.request_kinds import KINDS
from layerwire_server.worker.request_kinds.infer import DATATYPES
from layerwire_server.worker.running.device import Phases
from layerwire_server.worker.running.execution import Execution
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.stored_tensors import StoredTensors
from layerwire_server.worker.weights.weights_cache import CacheMiss, WeightsCache, load_error
from tests.through_server.inference.messages import infer, parameter
from tests.through_server.inference.programs import FEATURES, linear, pair, square

ROWS = 2
X = np.ones((ROWS, FEATURES), np.float32)


@pytest.fixture
def decoder(tmp_path: Path) -> CallDecoder:
    store = Store(tmp_path)
    for name, program in {"linear": linear(), "pair": pair(), "short": square(1)}.items():
        store.put_program(name, program.SerializeToString(deterministic=True), [])
    stored_tensors = StoredTensors(store)
    weights_cache = WeightsCache(stored_tensors, lambda tensor: tensor, 1 << 20)
    catalog = Catalog(store, stored_tensors, weights_cache, Facts(ProgramLimits(1 << 20, 1 << 22, 1e9), "cpu"))
    return CallDecoder(Plans(CallLimits(1 << 20, 1e9), "cpu"), catalog, deterministic=False)


async def call_of(decoder, family, request, arrival_time=0.0, deadline=math.inf) -> CallGroup:
    while True:
        try:
            return decoder.decode(KINDS[family], request, arrival_time, deadline)
        except CacheMiss as miss:
            assert await asyncio.wait_for(load_error(miss), 20) is None


async def test_calls_of_both_protocols_wait_in_one_lane(decoder):
    native = layerwire_pb2.RunRequest(name="linear", inputs={"x": arrays.from_numpy(X)})
    one = await call_of(decoder, "run", native)
    other = await call_of(decoder, "infer", infer("linear", {"x": X[:1]}, id="me"))
    assert one.key is other.key
    assert one.contents[0] == X.tobytes()
    assert other.contents[0] == X[:1].tobytes()
    assert (one.model, one.output_selection) == (Model("linear", 1), None)
    assert (other.model, other.output_selection) == (Model("linear", 1), ("me", (0,)))
    assert one.plan.recipe == (await call_of(decoder, "infer", infer("linear", {"x": X}))).plan.recipe


async def test_calls_of_a_program_that_is_brought_count_for_no_model(decoder):
    request = layerwire_pb2.RunRequest(definition=linear(), inputs={"x": arrays.from_numpy(X)})
    assert (await call_of(decoder, "run", request)).model is None


@pytest.mark.parametrize(
    ("level", "priority"), [(None, 0), (0, 0), (1, 10), (2, 9), (11, 0), (12, -1), (21, -10), (22, 0), (10**9, 0)]
)
@pytest.mark.parametrize("field", ["int64_param", "uint64_param"])
def test_priorities(level, priority, field):
    parameters = {} if level is None else {"priority": oip.InferParameter(**{field: level})}
    options = KINDS["infer"].call_options(oip.ModelInferRequest(parameters=parameters))
    assert options.priority == priority


async def test_timeouts_are_microseconds_and_the_earliest_counts(decoder):
    def request(microseconds):
        return infer("linear", {"x": X}, parameters={"timeout": parameter(microseconds)})

    assert (await call_of(decoder, "infer", request(0), 5.0)).deadline == math.inf
    assert (await call_of(decoder, "infer", request(250_000), 5.0)).deadline == 5.25
    assert (await call_of(decoder, "infer", request(250_000), 5.0, 5.1)).deadline == 5.1


def test_every_dtype_has_one_name():
    names = {name: INFERENCE_NAMES[row.code] for name, row in OF_INFERENCE.items()}
    assert names == {name: name for name in OF_INFERENCE}
    assert INFERENCE_NAMES.keys() == dtypes.DTYPE_NAMES.keys()
    assert set(DATATYPES) == OF_INFERENCE.keys()


def test_contents_that_grow_by_parsing_are_no_data():
    paths = parse_limits.paths_to_data(oip.ModelInferRequest.DESCRIPTOR)
    (inputs,) = (below for below in paths.values() if below is not None)
    (contents,) = (below for below in inputs.values() if below is not None)
    fields = oip.InferTensorContents.DESCRIPTOR.fields_by_number
    assert {fields[tag >> 3].name for tag in contents} == {"bool_contents", "fp32_contents", "fp64_contents"}


async def test_statistics_of_a_batch(decoder):
    statistics = ModelCounters()
    one = await call_of(decoder, "infer", infer("linear", {"x": X}), arrival_time=10.0)
    two = await call_of(decoder, "infer", infer("linear", {"x": X[:1]}), arrival_time=11.0)
    bad = await call_of(decoder, "infer", infer("linear", {"x": X}), arrival_time=9.0)
    batch = Batch(one.key, [one, two, bad], 5, 1.0, "drained")
    execution = Execution([[], [], InternalError("x")], Phases(0.25, 0.5, 0.125))
    statistics.count_batch(batch, 12.0, 13.0, execution, 1000.5)
    statistics.count_failure(bad, 13.0)
    message = statistics.of("linear", 1)
    assert (message.inference_count, message.execution_count, message.last_inference) == (3, 1, 1000500)
    stats = message.inference_stats
    durations = {field.name: (value.count, value.ns / 1e9) for field, value in stats.ListFields()}
    assert durations == {
        "success": (2, 5.0),
        "fail": (1, 4.0),
        "queue": (2, 3.0),
        "compute_input": (2, 0.5),
        "compute_infer": (2, 1.0),
        "compute_output": (2, 0.25),
    }
    (size,) = message.batch_stats
    assert (size.batch_size, size.compute_infer.count, size.compute_infer.ns) == (5, 1, 500_000_000)
    assert statistics.of("pair", 1).inference_count == 0


async def test_a_group_counts_as_its_calls(decoder):
    """Five single calls, or a group of three and one of two: the same statistics."""
    messages = []
    for counts in ((1, 1, 1, 1, 1), (3, 2)):
        statistics, calls = ModelCounters(), []
        for count in counts:
            call = await call_of(decoder, "infer", infer("linear", {"x": X}), arrival_time=10.0)
            call.count = count
            calls.append(call)
        batch = Batch(calls[0].key, calls, 5 * ROWS, 1.0, "drained")
        statistics.count_batch(batch, 12.0, 13.0, Execution([[]] * len(calls), Phases(0.25, 0.5, 0.125)), 1000.5)
        for call in calls:
            statistics.count_failure(call, 13.0)
        messages.append(statistics.of("linear", 1))
    assert messages[0] == messages[1]
    assert (messages[0].inference_count, messages[0].inference_stats.success.count) == (5 * ROWS, 5)
    assert messages[0].inference_stats.fail.count == 5


async def test_calls_that_are_not_joined_are_one_inference_each(decoder):
    statistics = ModelCounters()
    call = await call_of(decoder, "infer", infer("short", {"x": np.eye(256, dtype=np.float32)}))
    batch = Batch(call.key, [call], 1, 1.0, "single")
    statistics.count_batch(batch, 1.0, 2.0, Execution([[]], Phases(0.1, 0.1, 0.1)), time.time())
    assert statistics.of("short", 1).inference_count == 1


async def test_sizes_of_batches_are_bounded(decoder):
    statistics = ModelCounters()
    call = await call_of(decoder, "infer", infer("linear", {"x": X}))
    calls = 1100
    for count in range(1, calls + 1):
        batch = Batch(call.key, [call] * count, ROWS * count, 1.0, "rows")
        results: list = [InternalError("x")] * (count - 1) + [[]]
        statistics.count_batch(batch, 1.0, 2.0, Execution(results, Phases(0.1, 0.1, 0.1)), 3.0)
    message = statistics.of("linear", 1)
    assert len(message.batch_stats) == 1025
    assert sum(size.compute_infer.count for size in message.batch_stats) == message.execution_count == calls
