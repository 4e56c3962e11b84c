"""Targets: what goes out comes back, each call ends once, whatever becomes of its server."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from layerwire.calls import Requests
from layerwire.errors import ResourceExhaustedError
from layerwire.transport.settings import make_settings
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire import arrays
from layerwire_bench.targets import channels, stream
from layerwire_bench.targets.inference import InferenceTarget
from layerwire_bench.targets.stream import StreamTarget
from layerwire_bench.targets.unary import UnaryTarget
from layerwire_bench.workload import Entry
from tests.layerwire_bench.targets.calls import ENTRY, Calls, sample
from tests.layerwire_bench.targets.foreign import Foreign
from tests.through_server.inference import programs
from tests.transport.fake_server import FakeServer

REMOTE = {"stream": StreamTarget, "unary": UnaryTarget, "oip": InferenceTarget}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, programs.FEATURES)).astype(np.float32)
RUN = Requests().run("linear", {"x": X})
IMAGE = RNG.normal(size=(2, 3, 4, 6)).astype(np.float32)
WEIGHT = RNG.normal(size=(5, 6)).astype(np.float32)
every = pytest.mark.parametrize("how", REMOTE)
layers = pytest.mark.parametrize("how", ["stream", "unary"])


def target(how, address, timeout=30.0, **settings):
    return REMOTE[how](make_settings(address, None, None, None, **settings), timeout)


async def one(opened, request, entry=ENTRY):
    """The outputs of a call."""
    prepared, calls = opened.prepare(sample(request), entry), Calls(opened)
    calls.fire(prepared)
    (ended,) = await calls.all()
    assert ended[1:] == ("OK", "")
    return opened.outputs(prepared, ended.answer)


def windows(x):
    """2 by 2."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)


@every
async def test_many_calls_get_their_own_answers(how, served):
    batches = [RNG.normal(size=(rows, programs.FEATURES)).astype(np.float32) for rows in (1, 2, 5)]
    async with target(how, served.address) as opened:
        prepared = [opened.prepare(sample(Requests().run("linear", {"x": x})), ENTRY) for x in batches]
        calls = Calls(opened)
        for number in range(60):
            calls.fire(prepared[number % 3])
        for number, ended in enumerate(await calls.all()):
            assert ended[1:] == ("OK", "")
            outputs = opened.outputs(prepared[number % 3], ended.answer)
            np.testing.assert_allclose(outputs["y"], programs.expected(batches[number % 3]), rtol=1e-5, atol=1e-6)


@every
async def test_programs_with_several_inputs_outputs_and_versions(how, served):
    a, b = X[:, :4].copy(), X[:, 2:].copy()
    async with target(how, served.address) as opened:
        outputs = await one(opened, Requests().run("pair", {"b": b, "a": a}), Entry("e", "e", 1.0, priority=-4))
        np.testing.assert_array_equal(outputs["sum"], a + b)
        np.testing.assert_array_equal(outputs["difference"], a - b)
        second = await one(opened, Requests().run("linear", {"x": X}, version=2))
        np.testing.assert_allclose(second["y"], programs.expected(X, 2.0), rtol=1e-5, atol=1e-6)


@every
@pytest.mark.parametrize("dtype", programs.DTYPES)
async def test_every_dtype_comes_back(how, dtype, served):
    ml_dtypes = pytest.importorskip("ml_dtypes") if dtype == "bfloat16" else None
    x = np.arange(6).reshape(3, 2).astype(ml_dtypes.bfloat16 if ml_dtypes else dtype)
    async with target(how, served.address) as opened:
        y = (await one(opened, Requests().run(f"identity-{dtype}", {"x": x})))["y"]
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, x)


@layers
async def test_operators_answer_by_output_name(how, served):
    f, pooled = Requests(), windows(IMAGE)
    async with target(how, served.address) as opened:
        outputs = await one(opened, f.max_pool2d(IMAGE, 2, return_indices=True))
        assert list(outputs) == ["output", "indices"]
        np.testing.assert_array_equal(outputs["output"], pooled.max(-1))
        np.testing.assert_array_equal(IMAGE.reshape(2, 3, -1)[0, 0][outputs["indices"][0, 0]], pooled.max(-1)[0, 0])
        assert list(await one(opened, f.max_pool2d(IMAGE, 2))) == ["output"]
        deterministic = Entry("e", "e", 1.0, priority=3, deterministic=True)
        linear = await one(opened, f.linear(X, WEIGHT), deterministic)
        np.testing.assert_allclose(linear["output"], X @ WEIGHT.T, rtol=1e-5, atol=1e-6)


@every
async def test_an_error_has_its_status(how, served):
    async with target(how, served.address) as opened:
        calls = Calls(opened)
        calls.fire(opened.prepare(sample(Requests().run("absent", {"x": X})), ENTRY), 3)
        calls.fire(opened.prepare(sample(RUN), ENTRY))
        ends = await calls.all()
    assert [ended.status for ended in ends] == ["NOT_FOUND"] * 3 + ["OK"]
    assert all("absent" in ended.message and ended.answer is None for ended in ends[:3])


@every
async def test_a_server_that_goes_ends_every_call(how):
    async with Foreign() as server, target(how, server.address) as opened:
        prepared, calls = opened.prepare(sample(RUN), ENTRY), Calls(opened)
        calls.fire(prepared, 20)
        await server.until(20)
        await server.__aexit__()
        assert {ended.status for ended in await calls.all()} <= {"UNAVAILABLE", "CANCELLED"}
        late = Calls(opened)
        late.fire(prepared, 3)
        ends = await late.all()
        assert {ended.status for ended in ends} == {"UNAVAILABLE"}
        assert all("is a server running there?" in ended.message for ended in ends)


@every
async def test_nobody_there_is_unavailable(how):
    async with Foreign() as server:
        address = server.address
    async with target(how, address) as opened:
        calls = Calls(opened)
        calls.fire(opened.prepare(sample(RUN), ENTRY), 2)
        assert {ended.status for ended in await calls.all()} == {"UNAVAILABLE"}


@every
async def test_closing_ends_what_is_in_flight_and_what_comes_then(how):
    async with Foreign() as server:
        opened = await target(how, server.address).__aenter__()
        prepared, calls, again = opened.prepare(sample(RUN), ENTRY), Calls(opened), Calls(opened)
        calls.fire(prepared, 20)
        opened.fire(prepared, lambda *ended: again.fire(prepared))
        await server.until(21)
        calls.fire(prepared, 5)  # not sent yet
        await opened.__aexit__()
        assert {ended.status for ended in calls.now()} == {"CANCELLED"}
        assert [ended.status for ended in again.now()] == ["CANCELLED"]


@every
async def test_a_call_has_its_timeout(how):
    async with Foreign() as server, target(how, server.address, timeout=0.2) as opened:
        calls = Calls(opened)
        calls.fire(opened.prepare(sample(RUN), ENTRY), 3)
        assert {ended.status for ended in await calls.all()} == {"DEADLINE_EXCEEDED"}


@every
async def test_what_is_no_tensor_is_refused(how):
    async with Foreign() as server, target(how, server.address) as opened:
        with pytest.raises(ValueError, match="must be a tensor or numbers"):
            opened.prepare(sample(Requests().run("linear", {"x": {1: 2}})), ENTRY)


SPECIAL = Entry("special", "special", 1.0, priority=-3, deterministic=True)


async def test_a_stream_says_how_calls_are_treated():
    with FakeServer() as server:
        async with target("stream", server.address, timeout=8.0) as opened:
            await one(opened, Requests().relu(X), SPECIAL)
    (call,) = server.calls
    options = call.activate.options
    assert (options.priority, options.deterministic, options.timeout_seconds) == (-3, True, 8.0)


async def test_a_unary_call_says_how_it_is_treated():
    came = []

    async def answer(request, context):
        came.append((pb.ActivateRequest.FromString(request), context.time_remaining()))
        return pb.ActivateResponse(output=arrays.from_numpy(X)).SerializeToString()

    async with Foreign(answer) as server, target("unary", server.address, timeout=8.0) as opened:
        outputs = await one(opened, Requests().relu(X), SPECIAL)
    np.testing.assert_array_equal(outputs["output"], X)
    ((request, seconds),) = came
    assert (request.options.priority, request.options.deterministic) == (-3, True)
    assert request.input.data == X.tobytes()
    assert 7.0 < seconds < 9.0


async def test_a_stream_shows_the_errors_that_the_sdk_would_mend():
    def refuse(answering, call):
        answering.refuse(call, ResourceExhaustedError("the queue is full", retry_after_seconds=0.001))

    with FakeServer(refuse) as server:
        async with target("stream", server.address) as opened:
            calls = Calls(opened)
            calls.fire(opened.prepare(sample(Requests().relu(X)), ENTRY), 4)
            assert {ended[1:] for ended in await calls.all()} == {("RESOURCE_EXHAUSTED", "the queue is full")}
        assert len(server.calls) == 4


async def test_a_stream_refuses_what_no_message_holds():
    with FakeServer() as server:
        async with target("stream", server.address, max_message_bytes=100) as opened:
            with pytest.raises(ValueError, match="more than the 100 of this client's max_message_bytes"):
                opened.prepare(sample(Requests().relu(X)), ENTRY)


async def test_calls_over_the_bound_wait_in_line(monkeypatch):
    monkeypatch.setattr(stream, "MAX_CALLS_IN_FLIGHT", 4)
    held = []
    with FakeServer(lambda answering, call: held.append((answering, call))) as server:
        async with target("stream", server.address) as opened:
            prepared, calls = opened.prepare(sample(Requests().relu(X)), ENTRY), Calls(opened)
            calls.fire(prepared, 20)
            for turn in range(5):
                await server.until(lambda turn=turn: len(held) == 4 * (turn + 1))
                for answering, call in held[4 * turn :]:
                    server.soon(answering.reply, call)
            assert {ended.status for ended in await calls.all()} == {"OK"}
            assert calls.order == list(range(20))
            np.testing.assert_array_equal(opened.outputs(prepared, calls.now()[7].answer)["output"], np.maximum(X, 0))


async def test_closing_ends_the_line_too(monkeypatch):
    monkeypatch.setattr(stream, "MAX_CALLS_IN_FLIGHT", 4)
    with FakeServer(lambda answering, call: None) as server:
        opened = await target("stream", server.address).__aenter__()
        calls = Calls(opened)
        calls.fire(opened.prepare(sample(Requests().relu(X)), ENTRY), 9)
        await server.until(lambda: len(server.calls) == 4)
        await opened.__aexit__()
        assert {ended.status for ended in calls.now()} == {"CANCELLED"}
        assert len(server.calls) == 4


@pytest.mark.parametrize("how", ["unary", "oip"])
async def test_many_calls_take_more_connections(how, monkeypatch):
    monkeypatch.setattr(channels, "CALLS_OF_A_CHANNEL", 10)
    async with Foreign() as server, target(how, server.address) as opened:
        prepared, calls = opened.prepare(sample(RUN), ENTRY), Calls(opened)
        calls.fire(prepared, 10)
        await server.until(10)
        assert len(server.peers) == 1
        calls.fire(prepared, 15)
        await server.until(25)
        assert len(server.peers) == 3


@pytest.mark.parametrize(
    "module", ["targets.stream", "targets.unary", "targets.local", "servers.info", "servers.counters"]
)
def test_messages_that_clash_with_others_are_loaded_by_who_speaks_them(module):
    code = f"import layerwire_bench.{module}, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert f"layerwire_bench.{module}" in loaded
    assert not {"layerwire.inference_v2", "torch", "layerwire_server"} & set(loaded)


async def test_firing_after_the_end_is_cancelled():
    async with Foreign() as server:
        for how in REMOTE:
            opened = target(how, server.address)
            async with opened:
                prepared = opened.prepare(sample(RUN), ENTRY)
            calls = Calls(opened)
            calls.fire(prepared)
            assert [ended.status for ended in await calls.all()] == ["CANCELLED"]
    await asyncio.sleep(0)
