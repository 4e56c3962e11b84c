"""The blocking face: threads, futures, interruption, callbacks, closing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import pickle
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import layerwire
from layerwire import errors
from layerwire.transport import background
from layerwire.v1 import layerwire_pb2 as pb
from tests.transport.fake_server import FakeStream
from tests.transport.rows import ROW


def test_64_threads_get_their_own_answers(server):
    with layerwire.Client(server.address) as lw, ThreadPoolExecutor(64) as pool:
        start = threading.Barrier(64)

        def work(number):
            start.wait()
            for turn in range(20):
                answer = lw.relu([-1.0, number, turn])
                np.testing.assert_array_equal(answer, [0, number, turn])

        list(pool.map(work, range(64)))
    assert len(server.calls) == 64 * 20
    assert len(server.streams) == 1
    assert len(server.frames) < len(server.calls), "calls of several threads shared frames"


def test_submitted_calls_are_all_in_flight_at_once(serve):
    held = []
    server = serve(lambda stream, call: held.append((stream, call)))
    with layerwire.Client(server.address) as lw:
        futures = [lw.submit.relu([-1.0, number]) for number in range(100)]
        server.wait_for(lambda: len(held) == 100)
        assert not any(future.done() for future in futures)
        for stream, call in reversed(held):
            server.soon(stream.reply, call)
        for number, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(300), [0, number])


def test_futures_are_those_of_the_standard_library(server):
    with layerwire.Client(server.address) as lw:
        future = lw.submit.relu(ROW)
        assert isinstance(future, concurrent.futures.Future)
        done, _ = concurrent.futures.wait([future], 20)
        assert done == {future}
        called = threading.Event()
        future.add_done_callback(lambda same: same is future and called.set())
        assert called.wait(300)
        assert not future.cancel()


def test_a_cancelled_future_cancels_the_call(serve):
    server = serve(lambda stream, call: None)
    with layerwire.Client(server.address) as lw:
        future = lw.submit.relu(ROW)
        server.wait_for(lambda: len(server.calls) == 1)
        assert future.cancel()
        assert future.cancelled()
        server.wait_for(lambda: server.cancelled == [server.calls[0].id])
        server.script = FakeStream.reply
        np.testing.assert_array_equal(lw.relu(ROW), [[0, 2]])


def test_submit_waits_for_room(serve):
    held = []
    server = serve(lambda stream, call: held.append((stream, call)))
    with layerwire.Client(server.address, max_calls_in_flight=2) as lw:
        first, second = lw.submit.relu(ROW), lw.submit.relu(ROW)
        with ThreadPoolExecutor(1) as pool:
            third = pool.submit(lambda: lw.submit.relu(ROW))
            server.wait_for(lambda: len(held) == 2)
            with pytest.raises(errors.DeadlineExceededError, match="no room"):
                lw.relu(ROW, timeout=0.05)
            assert not third.done()
            server.soon(held[0][0].reply, held[0][1])
            first.result(300)
            last = third.result(300)
            server.wait_for(lambda: len(held) == 3)
            for stream, call in held[1:]:
                server.soon(stream.reply, call)
            np.testing.assert_array_equal(second.result(300), [[0, 2]])
            np.testing.assert_array_equal(last.result(300), [[0, 2]])


def test_callbacks_may_submit_and_must_not_wait(server):
    with layerwire.Client(server.address, max_calls_in_flight=1) as lw:
        answers: list = []
        cancellation = threading.Event()

        def again(future):
            answers.append(lw.submit.relu(ROW))
            try:
                lw.relu(ROW)
            except errors.ClientStateError as error:
                answers.append(error)
            cancellation.set()

        lw.submit.relu(ROW).add_done_callback(again)
        assert cancellation.wait(300)
        np.testing.assert_array_equal(answers[0].result(300), [[0, 2]])
        assert "callback" in str(answers[1])


def test_an_interrupt_gives_up_the_call(serve):
    server = serve(lambda stream, call: None)
    with layerwire.Client(server.address) as lw:

        def interrupt():
            server.wait_for(lambda: len(server.calls) == 1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            lw.relu(ROW)
        thread.join()
        server.wait_for(lambda: len(server.cancelled) == 1)


def test_calls_outlive_a_server_that_comes_back(serve):
    server = serve()
    with layerwire.Client(server.address) as lw:
        lw.relu(ROW)
        server.script = lambda stream, call: None
        futures = [lw.submit.relu([-1.0, number]) for number in range(50)]
        server.wait_for(lambda: len(server.calls) == 51)
        server.stop()
        server.script = FakeStream.reply
        server.start()
        for number, future in enumerate(futures):
            np.testing.assert_array_equal(future.result(300), [0, number])


def test_a_server_that_accepts_and_never_answers_holds_nobody():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lw = layerwire.Client(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
        with pytest.raises(errors.DeadlineExceededError):
            lw.relu(ROW)
        with pytest.raises(errors.DeadlineExceededError):
            lw.wait_ready(timeout=0.1)
        with pytest.raises(errors.DeadlineExceededError):
            lw.server_info()
        future = lw.options(timeout=None).submit.relu(ROW)
        lw.close()
        assert isinstance(future.exception(20), errors.CallCancelledError)


def test_errors_are_raised_where_the_call_is(serve):
    server = serve(lambda stream, call: stream.refuse(call, errors.invalid("relu", "input", "is wrong")))
    with layerwire.Client(server.address) as lw:
        with pytest.raises(errors.InvalidArgumentError, match="relu: input is wrong") as caught:
            lw.relu(ROW)
        assert caught.value.field == "input"
        assert isinstance(lw.submit.relu(ROW).exception(20), errors.InvalidArgumentError)
        server.script = lambda stream, call: None
        with pytest.raises(errors.DeadlineExceededError):
            lw.relu(ROW, timeout=0.05)


def test_close_ends_calls_and_the_client(serve):
    server = serve(lambda stream, call: None)
    lw = layerwire.Client(server.address)
    future = lw.submit.relu(ROW)
    server.wait_for(lambda: len(server.calls) == 1)
    lw.close()
    with pytest.raises(errors.CallCancelledError):
        future.result(300)
    for call in (lw.relu, lw.submit.relu, lw.options(priority=1).relu, lambda row: lw.wait_ready()):
        with pytest.raises(errors.ClientClosedError, match="closed"):
            call(ROW)
    assert repr(lw) == f"<layerwire.Client of {server.address} (closed)>"
    lw.close()


def test_a_future_outlives_its_client(serve):
    held = []
    server = serve(lambda stream, call: held.append((stream, call)))
    future = layerwire.Client(server.address).submit.relu(ROW)
    server.wait_for(lambda: len(held) == 1)
    gc.collect()
    server.soon(held[0][0].reply, held[0][1])
    np.testing.assert_array_equal(future.result(300), [[0, 2]])
    gc.collect()
    assert not any(engine.settings.addresses == (server.address,) for engine in background._state.engines)


@pytest.mark.parametrize("face", [layerwire.Client, layerwire.AsyncClient])
@pytest.mark.parametrize("spread", [pickle.dumps, copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_client_stays_where_it_is(face, spread):
    with pytest.raises(TypeError, match="make one where it is used"):
        spread(face("localhost:1"))


def test_a_blocking_client_inside_a_running_loop(server):
    async def main():
        with layerwire.Client(server.address) as lw:
            return lw.relu(ROW)

    np.testing.assert_array_equal(asyncio.run(main()), [[0, 2]])


def test_a_dropped_client_leaves_no_engine(server):
    lw = layerwire.Client(server.address)
    lw.relu(ROW)
    engine = lw._session.engine()
    del lw
    gc.collect()
    assert engine not in background._state.engines


def test_unary_calls(serve):
    server = serve()
    server.stop()
    server.unary = {
        "PutWeights": lambda request: pb.PutWeightsResponse(
            name=pb.PutWeightsRequest.FromString(request).name, digest="d1"
        ).SerializeToString(),
        "GetServerInfo": lambda request: pb.GetServerInfoResponse(version="9").SerializeToString(),
        "Estimate": estimate,
    }
    server.start()
    with layerwire.Client(server.address, max_message_bytes=100_000) as lw:
        lw.wait_ready()
        assert lw.put_weights("w", ROW) == "d1"
        assert lw.server_info().version == "9"
        assert lw.estimate("linear", ROW, "w") == (((("float32", (1, 3)),)), 8, 12, 12)
        with pytest.raises(errors.ResourceExhaustedError, match="max_message_bytes"):
            lw.put_weights("w", np.zeros(50_000))
        with pytest.raises(AttributeError, match="nothing_like_it"):
            lw.estimate("nothing_like_it", ROW)
        with pytest.raises(TypeError, match="name must be a string"):
            lw.put_weights(3, ROW)


def estimate(request: bytes) -> bytes:
    call = pb.EstimateRequest.FromString(request).linear
    assert (call.input.dtype, list(call.input.shape), call.input.data) == (1, [1, 2], b"")
    assert call.weight.name == "w"
    output = {"dtype": 1, "shape": [1, 3]}
    return pb.EstimateResponse(
        outputs=[output], input_bytes=8, output_bytes=12, floating_point_operations=12
    ).SerializeToString()


def test_unary_calls_of_an_older_server(server):
    with layerwire.Client(server.address) as lw, pytest.raises(errors.UnimplementedError):
        lw.server_info()
