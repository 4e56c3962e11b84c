"""What becomes of calls on the way: order, frames, breaking connections, refusals."""

from __future__ import annotations

import asyncio
import random

import grpc
import numpy as np
import pytest

import layerwire
from layerwire import errors
from layerwire.transport.connection import WHOLE_FRAME_CALLS
from layerwire.v1 import layerwire_pb2 as pb
from tests.transport.fake_server import FakeStream
from tests.transport.rows import ROW, assert_own_answers, keep, numbered


@pytest.fixture(params=[False, True], ids=["singles", "groups"])
def takes_groups(request):
    return request.param


async def test_answers_in_any_order_reach_their_calls(serve):
    held = []

    def shuffle(stream, call):
        held.append(call)
        if len(held) == 100:
            random.Random(1).shuffle(held)
            for each in held:
                stream.reply(each)

    server = serve(shuffle)
    async with layerwire.AsyncClient(server.address) as lw:
        rows = numbered(100)
        assert_own_answers(rows, await asyncio.gather(*(lw.relu(row) for row in rows)))


async def test_calls_that_wait_travel_in_one_frame(server):
    async with layerwire.AsyncClient(server.address) as lw:
        await lw.relu(ROW)
        await asyncio.gather(*(lw.relu(row) for row in numbered(WHOLE_FRAME_CALLS)))
    assert server.frames == [1, WHOLE_FRAME_CALLS]


async def test_unknown_and_repeated_ids_are_passed_over(serve):
    def noisy(stream, call):
        stream.answer(id=call.id + 1000, activate=pb.ActivateResponse())
        stream.reply(call)
        stream.reply(call)

    server = serve(noisy)
    async with layerwire.AsyncClient(server.address) as lw:
        for row in numbered(5):
            np.testing.assert_array_equal(await lw.relu(row), np.maximum(row, 0))


async def test_garbage_ends_the_calls_and_not_the_client(serve):
    server = serve(lambda stream, call: stream.send(b"\xff\xff\xff"))
    async with layerwire.AsyncClient(server.address) as lw:
        with pytest.raises(errors.InternalError, match="relu: .*no StreamResponse"):
            await lw.relu(ROW)
        server.script = FakeStream.reply
        np.testing.assert_array_equal(await lw.relu(ROW), [[0, 2]])


ODD_ANSWERS = {
    "nothing": {},
    "another-family": {"pool": pb.PoolResponse()},
    "no-tensor": {"activate": pb.ActivateResponse()},
    "short-data": {"activate": pb.ActivateResponse(output={"dtype": 1, "shape": [2], "data": b"1234"})},
    "long-data": {"activate": pb.ActivateResponse(output={"dtype": 1, "shape": [1], "data": b"12345678"})},
    "negative-shape": {"activate": pb.ActivateResponse(output={"dtype": 1, "shape": [-1], "data": b""})},
    "negative-axes": {"activate": pb.ActivateResponse(output={"dtype": 1, "shape": [-1, -1], "data": bytes(4)})},
    "huge-shape": {"activate": pb.ActivateResponse(output={"dtype": 1, "shape": [2**40, 2**40], "data": b""})},
    "unknown-dtype": {"activate": pb.ActivateResponse(output={"dtype": 77, "shape": [1], "data": b"1"})},
}


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("fields", ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_an_answer_that_makes_no_sense_fails_its_call_alone(serve, fields, library):
    import torch

    def odd(stream, call):
        if np.frombuffer(call.activate.input.data, np.float32)[1] == 3:
            stream.answer(id=call.id, **fields)
        else:
            stream.reply(call)

    server = serve(odd)
    rows = numbered(5)
    async with layerwire.AsyncClient(server.address) as lw:
        answers = await asyncio.gather(
            *(lw.relu(torch.from_numpy(row) if library == "torch" else row) for row in rows), return_exceptions=True
        )
    assert isinstance(answers.pop(3), errors.InternalError)
    assert_own_answers(rows[:3] + rows[4:], [np.asarray(answer) for answer in answers])


async def test_calls_outlive_a_server_that_stops_and_comes_back(serve):
    server = serve()
    async with layerwire.AsyncClient(server.address) as lw:
        await lw.relu(ROW)
        server.script = keep
        rows = numbered(200)
        answers = asyncio.gather(*(lw.relu(row) for row in rows))
        await server.until(lambda: len(server.calls) == 201)
        await asyncio.to_thread(server.stop)
        server.script = FakeStream.reply
        await asyncio.to_thread(server.start)
        assert_own_answers(rows, await answers)
    ids = [call.id for call in server.calls]
    assert sorted(set(ids)) == sorted(ids[:201]), "sent again under the same ids"


def first_time_only(action):
    """A script that acts so on the first call and answers the rest."""
    done = []

    def script(stream, call):
        if done:
            stream.reply(call)
        else:
            done.append(call)
            action(stream)

    return script


ENDS = {
    "ok": lambda stream: stream.outgoing.put_nowait(None),
    "unavailable": lambda stream: stream.end(grpc.StatusCode.UNAVAILABLE, "going"),
    "cancelled": lambda stream: stream.end(grpc.StatusCode.CANCELLED, "stopping"),
    "reset": lambda stream: stream.end(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_a_stream_that_ends_so_is_opened_again(serve, end):
    server = serve(first_time_only(end))
    async with layerwire.AsyncClient(server.address) as lw:
        np.testing.assert_array_equal(await lw.relu(ROW), [[0, 2]])
    assert len(server.streams) == 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, errors.UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PermissionDeniedError),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgumentError),
        (grpc.StatusCode.INTERNAL, errors.InternalError),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_a_stream_that_ends_otherwise_ends_its_calls(serve, code, error):
    server = serve(first_time_only(lambda stream: stream.end(code, "because")))
    async with layerwire.AsyncClient(server.address) as lw:
        with pytest.raises(error, match="relu: .*because") as caught:
            await lw.relu(ROW)
        assert (caught.value.code, caught.value.operator) == (code, "relu")
        np.testing.assert_array_equal(await lw.relu(ROW), [[0, 2]])


async def test_without_retries_a_broken_stream_ends_its_calls(serve):
    server = serve(first_time_only(ENDS["cancelled"]))
    async with layerwire.AsyncClient(server.address, retries=0) as lw:
        with pytest.raises(errors.UnavailableError):
            await lw.relu(ROW)
        np.testing.assert_array_equal(await lw.relu(ROW), [[0, 2]])


async def test_an_address_without_a_server_is_told_soon(serve):
    server = serve()
    server.stop()
    async with layerwire.AsyncClient(server.address, timeout=60) as lw:
        with pytest.raises(errors.UnavailableError, match=f"relu: {server.address}"):
            await lw.relu(ROW)


def refusing(error, times):
    """A script that refuses the first calls and answers the rest."""

    def script(stream, call):
        if len(stream.server.calls) <= times:
            stream.refuse(call, error)
        else:
            stream.reply(call)

    return script


BUSY = errors.ResourceExhaustedError("queue is full", operator="relu", retry_after_seconds=0.01)
AWAY = errors.UnavailableError("no worker", operator="relu")
FULL = errors.ResourceExhaustedError("message is too large", operator="relu")


@pytest.mark.parametrize("refusal", [BUSY, AWAY], ids=["retry-after", "unavailable"])
async def test_a_refusal_for_now_is_tried_again_twice(serve, refusal):
    server = serve(refusing(refusal, 2))
    async with layerwire.AsyncClient(server.address) as lw:
        np.testing.assert_array_equal(await lw.relu(ROW), [[0, 2]])
        server.script = refusing(refusal, 1000)
        with pytest.raises(type(refusal)) as caught:
            await lw.relu(ROW)
    assert caught.value.message == refusal.message
    assert len(server.calls) == 3 + 3


@pytest.mark.parametrize(
    "refusal",
    [FULL, errors.invalid("relu", "input", "is wrong"), errors.NotFoundError("no such weights")],
    ids=lambda error: type(error).__name__,
)
async def test_a_refusal_for_good_is_not_tried_again(serve, refusal):
    server = serve(lambda stream, call: stream.refuse(call, refusal))
    async with layerwire.AsyncClient(server.address) as lw:
        with pytest.raises(type(refusal)) as caught:
            await lw.relu(ROW)
    assert (caught.value.operator, caught.value.field) == ("relu", refusal.field)
    assert len(server.calls) == 1


async def test_no_storm_on_a_server_in_trouble(serve):
    server = serve(lambda stream, call: stream.refuse(call, BUSY))
    async with layerwire.AsyncClient(server.address) as lw:
        answers = await asyncio.gather(*(lw.relu(ROW) for _ in range(200)), return_exceptions=True)
    assert all(isinstance(answer, errors.ResourceExhaustedError) for answer in answers)
    assert len(server.calls) <= 200 * 1.1 + 10


async def test_a_refusal_that_outlasts_the_deadline_is_told_at_once(serve):
    patient = errors.ResourceExhaustedError("queue is full", retry_after_seconds=50.0)
    server = serve(lambda stream, call: stream.refuse(call, patient))
    async with layerwire.AsyncClient(server.address, timeout=40) as lw:
        with pytest.raises(errors.ResourceExhaustedError) as caught:
            await lw.relu(ROW)
    assert caught.value.retry_after_seconds == 50.0


@pytest.mark.parametrize("refusals", [1, 4])
async def test_what_a_server_refuses_streams_for_is_told_though_a_write_comes_first(serve, refusals):
    """grpc.aio fails the write to a stream that the server has just ended, and then hides the server's status."""
    server = serve()
    server.refuses_streams = True
    async with layerwire.AsyncClient(server.address, token="wrong", retries=2) as lw:
        for _ in range(refusals):
            with pytest.raises(errors.UnauthenticatedError, match="not you"):
                await lw.relu(ROW)
        server.refuses_streams = False
        np.testing.assert_array_equal(await lw.relu(ROW), [[0, 2]])
