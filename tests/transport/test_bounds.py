"""Where calls end before their answer: deadlines, sizes, numbers in flight, cancellation, the client's end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import weakref

import numpy as np
import pytest

import layerwire
from layerwire import errors
from layerwire.transport import background
from layerwire.transport.connection import MAX_FRAME_BYTES, MAX_FRAME_CALLS, WHOLE_FRAME_CALLS
from layerwire.v1 import layerwire_pb2 as pb
from tests.transport.fake_server import FakeStream
from tests.transport.rows import ROW, assert_own_answers, keep, numbered


@pytest.fixture(params=[False, True], ids=["singles", "groups"])
def takes_groups(request):
    return request.param


async def test_frames_are_bounded_by_calls_and_bytes(server):
    large = np.zeros(MAX_FRAME_BYTES // 4, np.float32)
    async with layerwire.AsyncClient(server.address) as lw:
        await lw.relu(ROW)
        await asyncio.gather(*(lw.relu(ROW) for _ in range(3 * MAX_FRAME_CALLS)))
        assert server.frames[:2] == [1, MAX_FRAME_CALLS]
        assert sum(server.frames) == 3 * MAX_FRAME_CALLS + 1
        assert max(server.frames) == MAX_FRAME_CALLS
        before = len(server.frames)
        await asyncio.gather(lw.relu(ROW), lw.relu(large), lw.relu(ROW))
    assert server.frames[before:] == [1, 1, 1]


async def test_half_of_the_calls_go_before_the_others(server):
    """Else callers that wait for their answers move in step, and nobody works while a frame is on its way."""
    async with layerwire.AsyncClient(server.address) as lw:
        await lw.relu(ROW)
        await asyncio.gather(*(lw.relu(ROW) for _ in range(WHOLE_FRAME_CALLS)))
        await asyncio.gather(*(lw.relu(ROW) for _ in range(4 * WHOLE_FRAME_CALLS)))
    assert server.frames[:3] == [1, WHOLE_FRAME_CALLS, 2 * WHOLE_FRAME_CALLS]


async def test_deadline(serve):
    server = serve(keep)
    async with layerwire.AsyncClient(server.address) as lw:
        with pytest.raises(errors.DeadlineExceededError, match="relu: no answer in time") as caught:
            await lw.relu(ROW, timeout=0.05)
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(errors.DeadlineExceededError):
            await lw.options(timeout=0.05).relu(ROW)
        await server.until(lambda: len(server.cancelled) == 2)
    assert server.calls[0].activate.options.timeout_seconds == pytest.approx(0.05)
    assert server.cancelled == [call.id for call in server.calls]


async def test_calls_with_other_deadlines_expire_in_their_order(serve):
    server = serve(keep)
    async with layerwire.AsyncClient(server.address) as lw:
        expired = []

        async def call(seconds):
            with pytest.raises(errors.DeadlineExceededError):
                await lw.relu(ROW, timeout=seconds)
            expired.append(seconds)

        timeouts = [0.5, 0.1, 0.3, 0.2, 0.4]
        await asyncio.gather(*map(call, timeouts))
    assert expired == sorted(timeouts)


async def test_a_message_over_the_clients_limit_is_refused_here(server):
    async with layerwire.AsyncClient(server.address, max_message_bytes=10_000) as lw:
        with pytest.raises(errors.ResourceExhaustedError, match="relu: .* 10000 of this client's max_message_bytes"):
            await lw.relu(np.zeros(2500, np.float32))
        await lw.relu(np.zeros(2400, np.float32))
    assert len(server.calls) == 1


async def test_a_message_over_the_servers_limit_ends_its_call_alone(serve):
    held = []

    def hold(stream, call):
        held.append((stream, call))

    server = serve(hold, max_receive_message_length=100_000)
    async with layerwire.AsyncClient(server.address) as lw:
        small = [asyncio.ensure_future(lw.relu(row)) for row in numbered(10)]
        await server.until(lambda: len(held) == 10)
        server.script = FakeStream.reply
        with pytest.raises(errors.ResourceExhaustedError, match="relu: .*--max-message-bytes"):
            await lw.relu(np.zeros(100_000, np.float32))
        assert_own_answers(numbered(10), await asyncio.gather(*small))


async def test_an_answer_over_the_clients_limit_is_told(serve):
    big = pb.ActivateResponse(output={"dtype": 1, "shape": [25_000], "data": bytes(100_000)})
    server = serve(lambda stream, call: stream.answer(id=call.id, activate=big))
    async with layerwire.AsyncClient(server.address, max_message_bytes=50_000) as lw:
        with pytest.raises(errors.ResourceExhaustedError, match="relu: .*larger than max"):
            await lw.relu(ROW)


async def test_calls_beyond_the_bound_wait_their_turn(serve):
    held = []
    server = serve(lambda stream, call: held.append((stream, call)))
    async with layerwire.AsyncClient(server.address, max_calls_in_flight=3) as lw:
        rows = numbered(5)
        answers = [asyncio.ensure_future(lw.relu(row)) for row in rows]
        await server.until(lambda: len(held) == 3)
        server.soon(FakeStream.reply, *held[0])
        await server.until(lambda: len(held) == 4)
        assert len(server.calls) == 4
        server.script = FakeStream.reply
        for each in held[1:]:
            server.soon(FakeStream.reply, *each)
        assert_own_answers(rows, await asyncio.gather(*answers))


async def test_bytes_beyond_the_bound_wait_and_a_larger_call_goes_alone(serve):
    held = []
    server = serve(lambda stream, call: held.append((stream, call)))
    async with layerwire.AsyncClient(server.address, max_bytes_in_flight=1000) as lw:
        small = asyncio.ensure_future(lw.relu(ROW))
        await server.until(lambda: len(held) == 1)
        large = asyncio.ensure_future(lw.relu(np.ones(1000, np.float32)))
        await asyncio.sleep(0)  # one step of the task: it stands in line, and what comes later behind it
        with pytest.raises(errors.DeadlineExceededError, match="no room"):
            await lw.relu(ROW, timeout=0.05)
        assert len(held) == 1
        server.soon(FakeStream.reply, *held[0])
        await small
        await server.until(lambda: len(held) == 2)
        server.soon(FakeStream.reply, *held[1])
        assert (await large).shape == (1000,)


@pytest.mark.parametrize("place", ["before-it-runs", "in-line", "unsent", "sent", "delayed", "answered"])
async def test_cancelled_at_every_await_the_client_goes_on(serve, place):
    server = serve(keep)
    async with layerwire.AsyncClient(server.address, max_calls_in_flight=1 if place == "in-line" else 100) as lw:
        first = None
        if place == "in-line":
            first = asyncio.ensure_future(lw.relu(ROW))
            await server.until(lambda: len(server.calls) == 1)
        if place == "delayed":
            server.script = lambda stream, call: stream.refuse(
                call, errors.ResourceExhaustedError("full", retry_after_seconds=20.0)
            )
        if place == "answered":
            server.script = FakeStream.reply
        task = asyncio.ensure_future(lw.relu(ROW))
        engine = lw._session.engine()
        if place in ("in-line", "unsent"):
            await asyncio.sleep(0)  # one step of the task: it stands at its await, and nothing was written yet
        elif place in ("sent", "delayed"):
            await server.until(lambda: len(server.calls) == 1)
        if place == "delayed":
            while not engine._retries:
                await asyncio.sleep(0)
        if place == "answered":
            while not engine._had_answer:
                await asyncio.sleep(0)  # the answer is in the future, the task has yet to wake
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if place == "sent":
            await server.until(lambda: server.cancelled == [server.calls[0].id])
        if first is not None:
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
        server.script = FakeStream.reply
        np.testing.assert_array_equal(await lw.relu(ROW), [[0, 2]])
        assert (engine.admission._calls, engine.admission._bytes) == (0, 0)
        assert not engine._retries
        assert not engine._waiting_calls
        assert not engine.connections[0].sent_calls


async def test_cancel_storm_leaves_nothing_behind(serve):
    chance = random.Random(3)
    held = []

    def sometimes(stream, call):
        if chance.random() < 0.5:
            stream.reply(call)
        else:
            held.append((stream, call))

    server = serve(sometimes)
    async with layerwire.AsyncClient(server.address, max_calls_in_flight=50) as lw:

        async def caller():
            for _ in range(40):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(chance.uniform(0, 0.005)):
                        await lw.relu(ROW)

        await asyncio.gather(*(caller() for _ in range(20)))
        engine = lw._session.engine()
        assert (engine.admission._calls, engine.admission._bytes) == (0, 0)
        server.script = FakeStream.reply
        np.testing.assert_array_equal(await lw.relu(ROW), [[0, 2]])
        assert not engine.connections[0].sent_calls


async def test_close_ends_calls_and_the_client(serve):
    server = serve(keep)
    lw = layerwire.AsyncClient(server.address)
    answer = asyncio.ensure_future(lw.relu(ROW))
    await server.until(lambda: len(server.calls) == 1)
    await lw.close()
    with pytest.raises(errors.CallCancelledError, match="relu: the client was closed"):
        await answer
    for closed in (lw, lw.options(priority=1)):
        with pytest.raises(errors.ClientClosedError, match="closed"):
            await closed.relu(ROW)
    with pytest.raises(errors.ClientClosedError):
        await lw.server_info()
    await lw.close()


async def test_a_client_closed_unused_stays_closed(server):
    lw = layerwire.AsyncClient(server.address)
    await lw.close()
    with pytest.raises(errors.ClientClosedError):
        await lw.relu(ROW)
    assert repr(lw) == f"<layerwire.AsyncClient of {server.address} (closed)>"


async def test_a_dropped_client_hangs_up(server):
    lw = layerwire.AsyncClient(server.address)
    await lw.relu(ROW)
    engine = lw._session.engine()
    del lw
    gc.collect()
    while engine.connections or engine in background._foreign_engines:
        await asyncio.sleep(0)


def test_another_loop_is_told_clearly(server):
    lw = layerwire.AsyncClient(server.address)

    async def call():
        return await lw.relu(ROW)

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(call())
        with pytest.raises(errors.ClientStateError, match="another event loop"):
            second.run(call())
        with pytest.raises(errors.ClientStateError, match="another event loop"):
            second.run(lw.close())
        first.run(lw.close())


async def test_an_answered_call_holds_no_data(server):
    class Watched(np.ndarray):
        pass

    async with layerwire.AsyncClient(server.address) as lw:
        array = ROW.view(Watched)
        watch = weakref.ref(array)
        await lw.relu(array)
        del array
        gc.collect()
        assert watch() is None
        assert all(not call.data for _, _, call in lw._session.engine()._deadlines._heap)


async def test_answers_are_their_callers_alone(server):
    """Not held until the call would have expired: a large one would stay for half a minute."""
    async with layerwire.AsyncClient(server.address) as lw:
        for _ in range(3):
            answer = await lw.relu(ROW)
            held = weakref.ref(answer)
            del answer
            await asyncio.sleep(0)
            assert held() is None
