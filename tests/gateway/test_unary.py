"""Unary RPCs through a real channel, the gateway, and a real unix socket."""

from __future__ import annotations

import asyncio
import math

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from layerwire.errors import InvalidArgumentError, from_status, to_status
from layerwire.v1 import layerwire_pb2 as pb
from layerwire_server.gateway.service import FAMILIES
from layerwire_server.link import Flag, Frame, Kind

REQUEST = pb.ActivateRequest(input=pb.ActivateRequest().input.__class__(data=b"1234"))
RESPONSE = pb.ActivateResponse(output=pb.ActivateRequest().input.__class__(data=b"5678"))


def details(error):
    trailing = dict(iter(error.trailing_metadata()))
    return status_pb2.Status.FromString(trailing["grpc-status-details-bin"])


async def error_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "PutWeights"])
async def test_bytes_go_unopened_to_a_worker_and_back(rig, name):
    it = await rig()
    method = it.channel.unary_unary(f"/layerwire.v1.LayerwireService/{name}")
    call = asyncio.ensure_future(method(b"\xff no protobuf", timeout=30))
    frame = await it.workers[0].next(Kind.UNARY)
    assert (frame.family, bytes(frame.payload)) == (FAMILIES[name], b"\xff no protobuf")
    assert 29 < frame.deadline - frame.arrived < 31  # gRPC rounds timeouts up
    it.workers[0].answer(frame, b"nor this", 0)
    assert await call == b"nor this"
    assert it.count("layerwire_requests_total", method=name, code="OK") == 1


async def test_without_a_deadline_there_is_none(rig):
    it = await rig()
    call = asyncio.ensure_future(it.stub.Activate(REQUEST))
    frame = await it.workers[0].next(Kind.UNARY)
    assert frame.deadline == math.inf
    it.workers[0].answer(frame, RESPONSE.SerializeToString(), 0)
    assert await call == RESPONSE


async def test_an_error_arrives_with_code_message_and_details(rig):
    it = await rig()
    call = asyncio.ensure_future(it.stub.Activate(REQUEST))
    frame = await it.workers[0].next(Kind.UNARY)
    wrong = InvalidArgumentError("relu: input must be there", operator="relu", field="input")
    it.workers[0].answer(frame, to_status(wrong).SerializeToString(), error=True)
    error = await error_of(call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "relu: input must be there"
    cause = from_status(details(error))
    assert (cause.operator, cause.field, cause.message) == (
        "relu",
        "input",
        "relu: input must be there",
    )
    assert it.count("layerwire_requests_total", method="Activate", code="INVALID_ARGUMENT") == 1


async def test_an_error_that_is_too_long_for_trailers_is_cut(rig):
    it = await rig()
    call = asyncio.ensure_future(it.stub.Activate(REQUEST))
    frame = await it.workers[0].next(Kind.UNARY)
    it.workers[0].answer(frame, to_status(InvalidArgumentError("x" * 9000)).SerializeToString(), error=True)
    error = await error_of(call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details() == "x" * 1000
    assert details(error).message == "x" * 1000


async def test_beyond_the_limit_a_request_is_refused_with_the_time_to_come_back(rig):
    it = await rig(max_requests_in_flight="1")
    first = asyncio.ensure_future(it.stub.Activate(REQUEST))
    frame = await it.workers[0].next(Kind.UNARY)
    error = await error_of(it.stub.Activate(REQUEST))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--max-requests-in-flight of 1" in error.details()
    retry = error_details_pb2.RetryInfo()
    assert details(error).details[0].Unpack(retry)
    assert 0 < retry.retry_delay.ToNanoseconds() <= 5e9
    it.workers[0].answer(frame, RESPONSE.SerializeToString(), 0)
    await first
    again = asyncio.ensure_future(it.stub.Activate(REQUEST))
    it.workers[0].answer(await it.workers[0].next(Kind.UNARY), RESPONSE.SerializeToString(), 0)
    await again
    assert it.count("layerwire_rejected_total", reason="requests_in_flight") == 1


async def test_a_request_that_a_worker_would_read_too_late_is_refused_at_once(rig):
    it = await rig()
    asked = [asyncio.ensure_future(it.stub.Activate(REQUEST, timeout=3600)) for _ in range(2)]
    frame, unread = [await it.workers[0].next(Kind.UNARY) for _ in range(2)]
    it.workers[0].send(Frame(Kind.ANSWERS, frame.frame, RESPONSE.SerializeToString(), Flag.LAST, arrived=900.0))
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    error = await error_of(it.stub.Activate(REQUEST, timeout=1700))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert from_status(details(error)).retry_after_seconds > 0
    assert it.count("layerwire_rejected_total", reason="queue_seconds") == 1
    asked += [asyncio.ensure_future(it.stub.Activate(REQUEST, timeout=timeout)) for timeout in (3600, None)]
    for frame in (unread, *[await it.workers[0].next(Kind.UNARY) for _ in range(2)]):  # these have the time
        it.workers[0].answer(frame, RESPONSE.SerializeToString(), 0)
    await asyncio.gather(*asked)


async def test_each_connection_is_a_caller_of_its_own(rig):
    it = await rig()
    async with grpc.aio.insecure_channel(it.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        other = channel.unary_unary("/layerwire.v1.LayerwireService/Activate")
        asked = [asyncio.ensure_future(it.stub.Activate(REQUEST)) for _ in range(2)]
        frames = [await it.workers[0].next(Kind.UNARY) for _ in range(2)]
        asked.append(asyncio.ensure_future(other(REQUEST.SerializeToString())))
        frames.append(await it.workers[0].next(Kind.UNARY))
        for frame in frames:
            it.workers[0].answer(frame, RESPONSE.SerializeToString(), 0)
        await asyncio.gather(*asked)
    one, same, another = (frame.stream for frame in frames)
    assert one == same != another


async def test_a_connection_cannot_take_all_the_room(rig):
    it = await rig(max_requests_in_flight="4")
    asked = [asyncio.ensure_future(it.stub.Activate(REQUEST)) for _ in range(2)]
    frames = [await it.workers[0].next(Kind.UNARY) for _ in range(2)]
    error = await error_of(it.stub.Activate(REQUEST))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert from_status(details(error)).retry_after_seconds > 0
    async with grpc.aio.insecure_channel(it.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        other = channel.unary_unary("/layerwire.v1.LayerwireService/Activate")
        asked.append(asyncio.ensure_future(other(REQUEST.SerializeToString())))
        frames.append(await it.workers[0].next(Kind.UNARY))
        for frame in frames:
            it.workers[0].answer(frame, RESPONSE.SerializeToString(), 0)
        await asyncio.gather(*asked)


async def test_a_message_over_the_limit_is_refused(rig, mib):
    it = await rig(max_message_bytes="1MiB", max_output_bytes="1000")
    method = it.channel.unary_unary("/layerwire.v1.LayerwireService/Activate")
    error = await error_of(method(b"x" * (mib + 1)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == f"the message is larger than max ({mib + 1} vs. {mib}), the server's --max-message-bytes"
    error = await error_of(method(b"x" * (mib * 5 // 4 + 1)))  # grpcio's own words
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in error.details()
    assert it.workers[0].frames.empty()
    assert it.count("layerwire_rejected_total", reason="message_bytes") == 1
    assert it.gateway._admission.nbytes == 0


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_what_the_client_gives_up_is_taken_back_from_the_worker(rig, how):
    it = await rig()
    call = it.stub.Activate(REQUEST, timeout=0.3 if how == "deadline" else 30)
    frame = await it.workers[0].next(Kind.UNARY)
    if how == "cancel":
        call.cancel()
    cancelled = await it.workers[0].next(Kind.CANCEL_FRAME)
    assert cancelled.frame == frame.frame
    it.workers[0].answer(frame, RESPONSE.SerializeToString(), 0)
    code = {"cancel": grpc.StatusCode.CANCELLED, "deadline": grpc.StatusCode.DEADLINE_EXCEEDED}[how]
    assert await call.code() is code
    assert it.count("layerwire_requests_total", method="Activate", code=code.name) == 1
    assert it.gateway._admission.requests == 0


async def test_a_death_costs_the_client_nothing(rig):
    it = await rig(workers=2)
    call = asyncio.ensure_future(it.stub.Activate(REQUEST))
    first = asyncio.create_task(it.workers[0].next(Kind.UNARY))
    second = asyncio.create_task(it.workers[1].next(Kind.UNARY))
    (done,), (other,) = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    holder, heir = (it.workers[0], it.workers[1]) if done is first else (it.workers[1], it.workers[0])
    await holder.die()
    frame = await other
    heir.answer(frame, RESPONSE.SerializeToString(), 0)
    assert await call == RESPONSE
    assert it.count("layerwire_retried_frames_total") == 1


async def test_a_request_waits_for_the_only_worker_to_come_back(rig):
    it = await rig()
    call = asyncio.ensure_future(it.stub.Activate(REQUEST))
    await it.workers[0].next(Kind.UNARY)
    await it.workers[0].die()
    await it.workers[0].start()
    it.workers[0].answer(await it.workers[0].next(Kind.UNARY), RESPONSE.SerializeToString(), 0)
    assert await call == RESPONSE


async def test_without_a_worker_for_too_long_it_is_unavailable(rig):
    it = await rig(start_workers=False, unavailable_after_seconds="0.1")
    error = await error_of(it.stub.Activate(REQUEST))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert from_status(details(error)).retry_after_seconds > 0


async def test_a_worker_that_writes_garbage_is_reported_and_its_frames_go_elsewhere(rig):
    it = await rig()
    call = asyncio.ensure_future(it.stub.Activate(REQUEST))
    await it.workers[0].next(Kind.UNARY)
    it.workers[0].write_garbage()
    frame = await it.workers[0].next(Kind.UNARY)
    it.workers[0].answer(frame, RESPONSE.SerializeToString(), 0)
    assert await call == RESPONSE
    ((kind, values),) = it.child.messages
    assert (kind, values["worker"]) == ("misbehaves", 0)


async def test_what_is_not_foreseen_is_internal_with_an_id_and_no_more(rig, monkeypatch):
    it = await rig()

    async def fail():
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(it.gateway._workers.links[0], "names_changed", fail)
    call = asyncio.ensure_future(it.stub.PutWeights(pb.PutWeightsRequest(name="w")))
    frame = await it.workers[0].next(Kind.UNARY)
    it.workers[0].answer(frame, b"", 0)
    error = await error_of(call)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert error.details() == f"internal error {frame.frame:016x}"
    assert from_status(details(error)).error_id == f"{frame.frame:016x}"


async def test_server_info_tells_what_the_workers_told(rig):
    it = await rig(workers=2)
    await it.workers[1].die()
    await it.wait_for_health("worker/1", False)
    info = await it.stub.GetServerInfo(pb.GetServerInfoRequest())
    assert (info.torch_version, list(info.operators)) == ("9.9", ["conv2d", "relu"])
    assert [(worker.index, worker.device, worker.healthy) for worker in info.workers] == [
        (0, "cpu", True),
        (1, "cpu", False),
    ]
    assert info.limits == pb.Limits(
        max_message_bytes=64 * 1024**2,
        max_output_bytes=64 * 1024**2 - 65536,
        max_call_operations=2 * 10**11,
        max_queue_calls=16384,
        max_queue_bytes=1024**3,
        max_requests_in_flight=16384,
        max_bytes_in_flight=1024**3,
        max_weights_bytes=4 * 1024**3,
        max_message_calls=4096,
        max_program_bytes=1024**3,
        max_store_bytes=64 * 1024**3,
    )
    assert dict(info.numerics) == {"tf32": "False"}
