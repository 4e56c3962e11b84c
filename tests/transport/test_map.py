"""`map`: many calls at once, answered in their order; each fails, waits, expires and is sent again by itself."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
import torch

import layerwire
from layerwire import errors
from tests.transport.fake_server import FakeStream
from tests.transport.rows import ROW, assert_own_answers, busy_once, keep, numbered


@pytest.fixture(params=[False, True], ids=["singles", "groups"])
def takes_groups(request):
    return request.param


@pytest.fixture(params=["blocking", "awaitable"])
def relu(request):
    """`map.relu` of a client of either kind, by address and the client's arguments, then the method's."""

    async def call(address, rows, *, view=None, of=None, **arguments):
        if request.param == "awaitable":
            async with layerwire.AsyncClient(address, **(of or {})) as lw:
                return await (lw.options(**view) if view else lw).map.relu(rows, **arguments)

        def blocking():
            with layerwire.Client(address, **(of or {})) as lw:
                return (lw.options(**view) if view else lw).map.relu(rows, **arguments)

        return await asyncio.to_thread(blocking)

    return call


async def test_answers_come_in_order(server, relu):
    rows = numbered(3000)
    answers = await relu(server.address, rows)
    assert isinstance(answers, list)
    assert_own_answers(rows, answers)
    assert max(server.frames) > 1


async def test_arrays_tensors_and_shapes_may_differ(server, relu):
    rows = [ROW, ROW.reshape(2), torch.from_numpy(ROW), ROW.astype("f8"), ROW] * 5
    answers = await relu(server.address, rows)
    assert [type(answer) for answer in answers] == [type(row) for row in rows]
    assert [answer.dtype for answer in answers] == [row.dtype for row in rows]
    assert_own_answers([np.asarray(row) for row in rows], [np.asarray(answer) for answer in answers])


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (4, 0, 2), (0, 3)], ids=str)
async def test_axis_0_of_an_array_is_the_calls(server, relu, shape, library):
    array = np.arange(np.prod(shape), dtype="f4").reshape(shape)[::-1] - 4  # not contiguous
    answers = await relu(server.address, array if library == "numpy" else torch.from_numpy(array.copy()))
    assert len(answers) == shape[0]
    for row, answer in zip(array, answers, strict=True):
        assert isinstance(answer, np.ndarray if library == "numpy" else torch.Tensor)
        assert answer.shape == shape[1:]
        np.testing.assert_array_equal(np.asarray(answer), np.maximum(row, 0))
    assert len(server.calls) == shape[0]


def wrong(stream, call):
    """A script that refuses calls of 3 and 5, the latter first."""
    number = np.frombuffer(call.activate.input.data, "f4")[1]
    held = stream.__dict__.setdefault("held", [])
    if number in (3, 5):
        held.append((number, call))
        if len(held) == 2:
            for each, one in sorted(held, reverse=True):
                stream.refuse(one, errors.invalid("relu", "input", f"is {each:g}"))
    else:
        stream.reply(call)


async def test_the_first_calls_error_is_raised_when_all_have_ended(serve, relu):
    server = serve(wrong)
    with pytest.raises(errors.InvalidArgumentError, match="input is 3") as caught:
        await relu(server.address, numbered(10))
    assert (caught.value.field, len(server.calls)) == ("input", 10)


async def test_errors_stand_among_the_answers(serve, relu):
    rows = numbered(10)
    answers = await relu(serve(wrong).address, rows, return_exceptions=True)
    assert [str(answers.pop(place)) for place in (5, 3)] == ["relu: input is 5", "relu: input is 3"]
    assert_own_answers([row for place, row in enumerate(rows) if place not in (3, 5)], answers)


async def test_a_call_that_cannot_be_made_fails_alone(server, relu):
    rows = [ROW, ROW.astype("c8"), np.zeros(10_000, "f4"), ROW]
    arguments = {"of": {"max_message_bytes": 10_000}}
    answers = await relu(server.address, rows, return_exceptions=True, **arguments)
    assert [type(answer) for answer in answers] == [np.ndarray, TypeError, errors.ResourceExhaustedError, np.ndarray]
    with pytest.raises(TypeError, match="relu: input has dtype complex64"):
        await relu(server.address, rows, **arguments)
    assert len(server.calls) == 4


async def test_no_more_are_in_flight_than_may_be(serve, relu):
    most = 0
    waiting = []

    def script(stream, call):
        nonlocal most
        waiting.append(call)
        most = max(most, len(waiting))
        if len(waiting) == 1:  # answers when all that may come have come
            asyncio.get_running_loop().call_later(0.005, flush, stream)

    def flush(stream):
        while waiting:
            stream.reply(waiting.pop())

    rows = numbered(200)
    assert_own_answers(rows, await relu(serve(script).address, rows, of={"max_calls_in_flight": 16}))
    assert 1 < most <= 16


async def test_each_call_has_the_timeout(serve, relu):
    server = serve(lambda stream, call: None if len(server.calls) % 2 else stream.reply(call))
    answers = await relu(server.address, numbered(6), timeout=1.5, return_exceptions=True)
    assert [isinstance(answer, errors.DeadlineExceededError) for answer in answers] == [True, False] * 3


async def test_refused_calls_are_tried_again(serve, relu):
    script, refused = busy_once(4)
    rows = numbered(30)
    assert_own_answers(rows, await relu(serve(script).address, rows))
    assert len(refused) >= 7


async def test_rows_with_timing(serve, relu):
    rows = numbered(4)
    answers = await relu(serve(FakeStream.reply).address, rows, view={"timing": True})
    assert_own_answers(rows, [answer.value for answer in answers])


async def test_a_map_that_is_cancelled_gives_up_its_calls(serve):
    server = serve(keep)
    async with layerwire.AsyncClient(server.address, max_calls_in_flight=20) as lw:
        running = asyncio.ensure_future(lw.map.relu(numbered(50)))
        await server.until(lambda: len(server.calls) == 20)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await server.until(lambda: len(server.cancelled) == 20)
        server.script = FakeStream.reply
        assert_own_answers([ROW], await lw.map.relu([ROW]))
    assert len(server.calls) == 21


async def test_a_map_of_a_client_that_closes_ends(serve):
    server = serve(keep)
    lw = layerwire.Client(server.address, max_calls_in_flight=20)
    running = asyncio.ensure_future(asyncio.to_thread(lw.map.relu, numbered(50)))
    await server.until(lambda: len(server.calls) == 20)
    await asyncio.to_thread(lw.close)
    with pytest.raises((errors.CallCancelledError, errors.ClientClosedError)):
        await running


async def test_a_map_in_a_futures_callback_is_refused(serve):
    ends = []
    over = threading.Event()

    def callback(_):
        try:
            lw.map.relu([ROW])
        except errors.ClientStateError as error:
            ends.append(error)
        over.set()

    server = serve(keep)
    with layerwire.Client(server.address) as lw:
        lw.submit.relu(ROW).add_done_callback(callback)
        await server.until(lambda: len(server.calls) == 1)
        server.soon(lambda: server.streams[0].reply(server.calls[0]))
        await asyncio.to_thread(over.wait, 20)
    assert len(ends) == 1
