"""The Open Inference Protocol at the gateway: streams of single requests, readiness, statistics of all workers."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf import text_format

from layerwire.errors import NotFoundError, to_status
from layerwire.inference_v2 import open_inference_pb2 as oip
from layerwire_server.gateway import spans
from layerwire_server.gateway.inference import total
from layerwire_server.link import Family, Frame, Kind

SERVICE = "/inference.GRPCInferenceService/"


def request(number, data=b""):
    tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="UINT8", shape=[len(data)])
    return oip.ModelInferRequest(
        model_name="model", model_version="3", id=str(number), inputs=[tensor], raw_input_contents=[data]
    )


def answer(number):
    return oip.ModelInferResponse(model_name="model", id=str(number), raw_output_contents=[b"yes"])


def stream_of(it):
    return it.channel.stream_stream(
        SERVICE + "ModelStreamInfer",
        oip.ModelInferRequest.SerializeToString,
        oip.ModelStreamInferResponse.FromString,
    )()


def ask(it, method, **fields):
    message = getattr(oip, f"{method}Request")(**fields)
    response = getattr(oip, f"{method}Response")
    return it.channel.unary_unary(SERVICE + method, type(message).SerializeToString, response.FromString)(
        message, timeout=300
    )


async def read(stream):
    return await asyncio.wait_for(stream.read(), 10)


async def test_each_answer_of_a_stream_is_a_message_and_comes_when_it_is_there(rig):
    it = await rig()
    stream = stream_of(it)
    for number in (1, 2):
        await stream.write(request(number))
    one, two = [await it.workers[0].next(Kind.UNARY) for _ in range(2)]
    assert (one.family, oip.ModelInferRequest.FromString(one.payload)) == (Family.INFER, request(1))
    for number, frame in ((2, two), (1, one)):
        it.workers[0].answer(frame, answer(number).SerializeToString(), 0)
        expected = answer(number)
        expected.parameters["triton_final_response"].bool_param = True
        assert await read(stream) == oip.ModelStreamInferResponse(infer_response=expected)
    await stream.done_writing()
    assert await stream.code() is grpc.StatusCode.OK
    assert it.count("layerwire_requests_total", method="ModelStreamInfer", code="OK") == 1
    assert it.gateway._admission.nbytes == 0


async def test_an_error_is_its_requests_alone(rig):
    it = await rig()
    stream = stream_of(it)
    for number in (1, 2):
        await stream.write(request(number))
    one, two = [await it.workers[0].next(Kind.UNARY) for _ in range(2)]
    it.workers[0].answer(one, to_status(NotFoundError("no model")).SerializeToString(), error=True)
    message = await read(stream)
    assert message.error_message == "no model"
    response = message.infer_response
    assert (response.model_name, response.model_version, response.id) == ("model", "3", "1")
    assert response.parameters["triton_final_response"].bool_param
    it.workers[0].answer(two, answer(2).SerializeToString(), 0)
    assert (await read(stream)).infer_response.id == "2"
    stream.cancel()


@pytest.mark.parametrize("message", [b"", b"\xff", b"\x0a\x02\xff\xff\x1a\x01a"], ids=["empty", "none", "no utf-8"])
async def test_what_is_no_request_is_answered_without_names(rig, message):
    it = await rig()
    stream = it.channel.stream_stream(SERVICE + "ModelStreamInfer", None, oip.ModelStreamInferResponse.FromString)()
    await stream.write(message)
    frame = await it.workers[0].next(Kind.UNARY)
    assert frame.payload == message
    it.workers[0].answer(frame, to_status(NotFoundError("no request")).SerializeToString(), error=True)
    failed = await read(stream)
    assert (failed.error_message, failed.infer_response.model_name) == ("no request", "")
    stream.cancel()


async def test_a_stream_that_holds_too_much_is_read_no_further(rig, mib):
    it = await rig(max_stream_bytes="1MiB")
    stream = stream_of(it)

    async def write_all():
        for number in range(4):
            await stream.write(request(number, b"x" * (600 * 1024)))

    writing = asyncio.create_task(write_all())
    held = [await it.workers[0].next(Kind.UNARY) for _ in range(2)]
    assert it.gateway._admission.nbytes > mib
    for number in range(4):
        assert it.workers[0].frames.empty()
        it.workers[0].answer(held.pop(0), answer(number).SerializeToString(), 0)
        assert (await read(stream)).infer_response.id == str(number)
        if number < 2:
            held.append(await it.workers[0].next(Kind.UNARY))
    await writing
    stream.cancel()


async def test_a_client_that_leaves_takes_its_requests_back(rig):
    it = await rig()
    stream = stream_of(it)
    for number in range(3):
        await stream.write(request(number))
    frames = {(await it.workers[0].next(Kind.UNARY)).frame for _ in range(3)}
    stream.cancel()
    assert {(await it.workers[0].next(Kind.CANCEL_FRAME)).frame for _ in range(3)} == frames


async def test_nothing_is_ready_while_the_gateway_stops(rig):
    it = await rig(lame_duck_seconds="1")
    stream = stream_of(it)
    await stream.write(request(1))
    frame = await it.workers[0].next(Kind.UNARY)
    assert (await ask(it, "ServerReady")).ready
    stopping = asyncio.create_task(it.gateway.stop())
    await it.wait_for_health("inference.GRPCInferenceService", False)
    assert (await ask(it, "ServerLive")).live
    assert not (await ask(it, "ServerReady")).ready
    assert not (await ask(it, "ModelReady", name="model")).ready
    it.workers[0].answer(frame, answer(1).SerializeToString(), 0)
    assert (await read(stream)).infer_response.id == "1"
    assert await stream.code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(stopping, 10)


async def test_nothing_is_ready_without_a_worker(rig):
    it = await rig(start_workers=False)
    assert (await ask(it, "ServerLive")).live
    assert not (await ask(it, "ServerReady")).ready
    assert not (await ask(it, "ModelReady", name="model")).ready
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(it, "ModelStatistics")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


ONE = """model_stats { name: "m" version: "1" last_inference: 5 inference_count: 8 execution_count: 3
  inference_stats { success { count: 4 ns: 40 } queue { count: 4 ns: 7 } }
  batch_stats { batch_size: 2 compute_infer { count: 2 ns: 6 } }
  batch_stats { batch_size: 4 compute_infer { count: 1 ns: 5 } } }
model_stats { name: "m" version: "2" inference_count: 1 }"""
OTHER = """model_stats { name: "m" version: "1" last_inference: 4 inference_count: 3 execution_count: 2
  inference_stats { success { count: 3 ns: 1 } fail { count: 1 ns: 2 } }
  batch_stats { batch_size: 1 compute_infer { count: 1 ns: 9 } }
  batch_stats { batch_size: 2 compute_infer { count: 1 ns: 3 } } }"""
SUM = """model_stats { name: "m" version: "1" last_inference: 5 inference_count: 11 execution_count: 5
  inference_stats { success { count: 7 ns: 41 } fail { count: 1 ns: 2 } queue { count: 4 ns: 7 } }
  batch_stats { batch_size: 2 compute_infer { count: 3 ns: 9 } }
  batch_stats { batch_size: 4 compute_infer { count: 1 ns: 5 } }
  batch_stats { batch_size: 1 compute_infer { count: 1 ns: 9 } } }
model_stats { name: "m" version: "2" inference_count: 1 }"""


def parsed(text):
    return text_format.Parse(text, oip.ModelStatisticsResponse())


def test_statistics_are_summed():
    assert total([parsed(ONE), parsed(OTHER)]) == parsed(SUM)
    assert total([parsed(ONE)]) == parsed(ONE)


async def test_every_worker_is_asked_for_its_statistics(rig):
    it = await rig(workers=2)
    asking = asyncio.ensure_future(ask(it, "ModelStatistics", name="m"))
    for worker, text in zip(it.workers, (ONE, OTHER), strict=True):
        frame = await worker.next(Kind.UNARY)
        assert frame.family is Family.MODEL_STATISTICS
        assert oip.ModelStatisticsRequest.FromString(frame.payload).name == "m"
        worker.answer(frame, parsed(text).SerializeToString(), 0)
    assert await asking == parsed(SUM)


async def test_a_worker_that_dies_or_knows_no_such_model_is_left_out(rig):
    it = await rig(workers=2)
    asking = asyncio.ensure_future(ask(it, "ModelStatistics", name="m"))
    frames = [await worker.next(Kind.UNARY) for worker in it.workers]
    error = to_status(NotFoundError("no model named 'm'")).SerializeToString()
    it.workers[0].answer(frames[0], error, error=True)
    await it.workers[1].die()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_request_that_kills_is_known_by_another_id(rig):
    it = await rig()

    async def infer(number):
        method = it.channel.unary_unary(SERVICE + "ModelInfer", oip.ModelInferRequest.SerializeToString)
        await method(request(number, b"bad"), timeout=300)

    asking = asyncio.ensure_future(infer(1))
    await it.workers[0].next(Kind.UNARY)
    await it.kill(0)
    await it.workers[0].start()
    frame = await it.workers[0].next(Kind.UNARY)
    it.workers[0].send(Frame(Kind.STARTED, frame.frame, ordinals=(0,)))
    (worker,) = it.gateway._router._live.values()
    # until the gateway knows what the worker is about to die of
    while worker.pending[frame.frame].running_ordinal is None:
        await asyncio.wait_for(it.workers[0].canaries.get(), 10)
    await it.kill(0)
    await it.workers[0].start()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    again = asyncio.ensure_future(infer(2))
    frame = await it.workers[0].next(Kind.UNARY)
    assert frame.ordinals, "it is marked"
    it.workers[0].answer(frame, to_status(NotFoundError("stop")).SerializeToString(), error=True)
    with pytest.raises(grpc.aio.AioRpcError):
        await again


def test_names_are_where_protobuf_finds_them():
    message = request(7, b"\x0a\x01x")
    assert oip.ModelInferResponse.FromString(spans.infer_names(message.SerializeToString())) == oip.ModelInferResponse(
        model_name="model", model_version="3", id="7"
    )
