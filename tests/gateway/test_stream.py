"""Streams through a real channel, the gateway, and a real unix socket."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from layerwire.errors import InvalidArgumentError, to_status
from layerwire.v1 import layerwire_pb2 as pb
from layerwire_server.gateway import stream as gateway_stream
from layerwire_server.gateway.stream_messages import together
from layerwire_server.link import QUARANTINED, Flag, Frame, Kind


def calls(*ids, data=b""):
    message = pb.StreamRequest(calls=pb.Calls(calls=[pb.Call(id=one) for one in ids]))
    for call in message.calls.calls:
        call.activate.input.data = data
    return message


def answers(*ids, data=b""):
    message = pb.StreamResponse(answers=[pb.Answer(id=one) for one in ids])
    for answer in message.answers:
        answer.activate.output.data = data
    return message.SerializeToString()


async def read_ids(stream, count):
    ids = []
    while len(ids) < count:
        message = await asyncio.wait_for(stream.read(), 10)
        assert message is not grpc.aio.EOF, ids
        ids += [answer.id for answer in message.answers]
    return ids


async def test_answers_come_as_workers_give_them(rig):
    it = await rig()
    stream = it.stub.Stream()
    await stream.write(calls(1, 2))
    first = await it.workers[0].next(Kind.CALLS)
    assert pb.StreamRequest.FromString(first.payload) == calls(1, 2)
    await stream.write(calls(3))
    second = await it.workers[0].next(Kind.CALLS)
    assert second.stream == first.stream
    it.workers[0].answer(second, answers(3), 0)
    assert await read_ids(stream, 1) == [3]
    it.workers[0].answer(first, answers(2), 1, last=False)
    assert await read_ids(stream, 1) == [2]
    it.workers[0].answer(first, answers(1), 0)
    assert await read_ids(stream, 1) == [1]
    await stream.done_writing()
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_says_that_it_takes_groups_before_its_client_says_anything(rig):
    it = await rig()
    stream = it.stub.Stream()
    metadata = await asyncio.wait_for(stream.initial_metadata(), 10)
    assert dict(iter(metadata))["layerwire-call-groups"] == "1"
    stream.cancel()


async def test_groups_pass_unopened(rig):
    it = await rig()
    stream = it.stub.Stream()
    message = pb.StreamRequest(calls=pb.Calls(groups=[pb.CallGroup(template=b"\xff no protobuf", ids=b"12345")]))
    await stream.write(message)
    frame = await it.workers[0].next(Kind.CALLS)
    assert pb.StreamRequest.FromString(frame.payload) == message
    answer = pb.StreamResponse(groups=[pb.AnswerGroup(template=b"\xff", ids=bytes(8), data=[b"1", b""])])
    it.workers[0].answer(frame, answer.SerializeToString())
    assert await asyncio.wait_for(stream.read(), 10) == answer
    stream.cancel()


async def test_a_client_that_has_said_all_still_gets_its_answers(rig):
    it = await rig()
    stream = it.stub.Stream()
    await stream.write(calls(1))
    await stream.done_writing()
    frame = await it.workers[0].next(Kind.CALLS)
    it.workers[0].answer(frame, answers(1), 0)
    assert await read_ids(stream, 1) == [1]
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK
    assert it.gateway._admission.nbytes == 0


@pytest.mark.parametrize("message", [b"", b"\x1a\x00", b"\xff"], ids=["empty", "another field", "no protobuf"])
async def test_what_is_neither_calls_nor_cancel_ends_the_stream(rig, message):
    it = await rig()
    stream = it.channel.stream_stream("/layerwire.v1.LayerwireService/Stream")()
    await stream.write(calls(1).SerializeToString())
    frame = await it.workers[0].next(Kind.CALLS)
    await stream.write(message)
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await it.workers[0].next(Kind.CANCEL_FRAME)).frame == frame.frame
    assert it.count("layerwire_requests_total", method="Stream", code="INVALID_ARGUMENT") == 1


async def test_a_frame_that_a_worker_refuses_ends_its_stream_and_no_other(rig):
    it = await rig()
    bad, good = it.stub.Stream(), it.stub.Stream()
    await bad.write(calls(1))
    frame = await it.workers[0].next(Kind.CALLS)
    await good.write(calls(2))
    other = await it.workers[0].next(Kind.CALLS)
    error = InvalidArgumentError("stream: calls must be at most 4096, got 5000")
    it.workers[0].answer(frame, to_status(error).SerializeToString(), error=True)
    assert await bad.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await bad.details() == "stream: calls must be at most 4096, got 5000"
    it.workers[0].answer(other, answers(2), 0)
    assert await read_ids(good, 1) == [2]
    good.cancel()


async def test_cancellations_follow_the_stream_to_its_worker(rig):
    it = await rig()
    stream = it.stub.Stream()
    await stream.write(calls(1))
    frame = await it.workers[0].next(Kind.CALLS)
    message = pb.StreamRequest(cancel=pb.Cancellation(ids=[1]))
    await stream.write(message)
    cancel = await it.workers[0].next(Kind.CANCEL_CALLS)
    assert (cancel.stream, pb.StreamRequest.FromString(cancel.payload)) == (frame.stream, message)
    stream.cancel()


async def test_a_client_that_leaves_takes_its_frames_back(rig):
    it = await rig()
    stream = it.stub.Stream()
    for number in range(3):
        await stream.write(calls(number))
    frames = [await it.workers[0].next(Kind.CALLS) for _ in range(3)]
    stream.cancel()
    taken = {(await it.workers[0].next(Kind.CANCEL_FRAME)).frame for _ in range(3)}
    assert taken == {frame.frame for frame in frames}
    it.workers[0].answer(frames[0], answers(0), 0)
    again = it.stub.Stream()
    await again.write(calls(9))
    it.workers[0].answer(await it.workers[0].next(Kind.CALLS), answers(9), 0)
    assert await read_ids(again, 1) == [9]
    assert it.count("layerwire_dropped_answers_total") == 1
    again.cancel()


async def test_a_worker_that_dies_in_the_middle_of_a_frame_costs_nothing(rig):
    it = await rig()
    stream = it.stub.Stream()
    await stream.write(calls(1, 2, 3))
    frame = await it.workers[0].next(Kind.CALLS)
    it.workers[0].answer(frame, answers(2), 1, last=False)
    assert await read_ids(stream, 1) == [2]
    await it.workers[0].die()
    await it.workers[0].start()
    again = await it.workers[0].next(Kind.CALLS)
    assert (again.flags, again.ordinals, again.frame) == (Flag.ISOLATE, (1,), frame.frame)
    assert again.payload == frame.payload
    it.workers[0].answer(again, answers(1, 3), 0, 2)
    assert sorted(await read_ids(stream, 2)) == [1, 3]
    stream.cancel()


async def test_a_call_that_kills_two_workers_is_quarantined(rig):
    it = await rig()
    stream = it.stub.Stream()
    await stream.write(calls(1, 2))
    await it.workers[0].next(Kind.CALLS)
    await it.kill(0)
    await it.workers[0].start()
    frame = await it.workers[0].next(Kind.CALLS)
    it.workers[0].answer(frame, answers(1), 0, last=False)
    it.workers[0].send(Frame(Kind.STARTED, frame.frame, ordinals=(1,)))
    it.workers[0].answer(frame, b"", 5, last=False)  # the link is in order: when this is in, STARTED was
    assert await read_ids(stream, 1) == [1]
    await it.kill(0)
    await it.workers[0].start()
    frame = await it.workers[0].next(Kind.CALLS)
    assert 1 | QUARANTINED in frame.ordinals
    it.workers[0].answer(frame, answers(2), 1)
    assert await read_ids(stream, 1) == [2]
    assert it.count("layerwire_quarantined_requests_total") == 1
    stream.cancel()


async def test_a_stream_that_holds_too_much_is_read_no_further_until_it_is_answered(rig, mib):
    it = await rig(max_stream_bytes="1MiB")
    stream = it.stub.Stream()
    payload = b"x" * (600 * 1024)
    writing = asyncio.create_task(write_all(stream, [calls(number, data=payload) for number in range(6)]))
    held = [await it.workers[0].next(Kind.CALLS) for _ in range(2)]
    assert it.gateway._admission.nbytes > mib
    assert it.workers[0].frames.empty()
    seen = []
    for number in range(6):
        it.workers[0].answer(held.pop(0), answers(number), 0)
        seen += await read_ids(stream, 1)
        if number < 4:
            held.append(await it.workers[0].next(Kind.CALLS))
            assert it.workers[0].frames.empty()
    assert seen == list(range(6))
    await writing
    stream.cancel()


async def test_while_answers_wait_to_be_read_workers_get_no_more_calls(rig, mib, monkeypatch):
    monkeypatch.setattr(gateway_stream, "_UNREAD_BYTES", mib)
    it = await rig()
    stream, other = it.stub.Stream(), it.stub.Stream()
    await stream.write(calls(0))
    frame = await it.workers[0].next(Kind.CALLS)
    for ordinal in range(8):  # more than gRPC takes from us before the client reads
        it.workers[0].answer(frame, answers(0, data=b"x" * mib), ordinal, last=ordinal == 7)
    (held,) = [each for each in it.gateway._streams.open if each._frames]
    while held._frames:
        await asyncio.wait_for(it.workers[0].canaries.get(), 10)
    await stream.write(calls(1))
    await stream.write(calls(2))
    await other.write(calls(3))
    assert pb.StreamRequest.FromString((await it.workers[0].next(Kind.CALLS)).payload) == calls(3)
    while len(held._waiting_frames) < 2:
        await asyncio.wait_for(it.workers[0].canaries.get(), 10)
    assert it.workers[0].frames.empty()
    assert await read_ids(stream, 8) == [0] * 8
    for number in (1, 2):
        frame = await it.workers[0].next(Kind.CALLS)
        it.workers[0].answer(frame, answers(number), 0)
    assert await read_ids(stream, 2) == [1, 2]
    stream.cancel()
    other.cancel()


async def test_cancellations_follow_the_calls_that_wait(rig, mib, monkeypatch):
    monkeypatch.setattr(gateway_stream, "_UNREAD_BYTES", -1)
    it = await rig()
    stream = it.stub.Stream()
    await stream.write(calls(1))
    await stream.write(pb.StreamRequest(cancel=pb.Cancellation(ids=[1])))
    frame = await it.workers[0].next(Kind.CALLS)
    assert (await it.workers[0].next(Kind.CANCEL_CALLS)).stream == frame.stream
    stream.cancel()


async def write_all(stream, messages):
    for message in messages:
        await stream.write(message)


async def test_streams_wait_when_the_gateway_is_full(rig):
    it = await rig(max_message_bytes="1MiB", max_output_bytes="1000", max_bytes_in_flight="1MiB")
    one, other = it.stub.Stream(), it.stub.Stream()
    payload = b"x" * (1000 * 1024)
    await one.write(calls(1, data=payload))
    first = await it.workers[0].next(Kind.CALLS)
    await other.write(calls(2, data=payload))
    second = await it.workers[0].next(Kind.CALLS)
    assert it.gateway._admission.full
    await one.write(calls(3))
    it.workers[0].answer(first, answers(1), 0)
    assert await read_ids(one, 1) == [1]
    third = await it.workers[0].next(Kind.CALLS)
    it.workers[0].answer(third, answers(3), 0)
    it.workers[0].answer(second, answers(2), 0)
    assert await read_ids(one, 1) == [3]
    assert await read_ids(other, 1) == [2]
    one.cancel()
    other.cancel()


async def test_a_stopping_gateway_answers_what_it_has_and_ends_the_streams(rig):
    it = await rig(lame_duck_seconds="1")  # time to ask for its health
    stream = it.stub.Stream()
    await stream.write(calls(1))
    frame = await it.workers[0].next(Kind.CALLS)
    stopping = asyncio.create_task(it.gateway.stop())
    await it.wait_for_health("", False)
    it.workers[0].answer(frame, answers(1), 0)
    assert await read_ids(stream, 1) == [1]
    assert await stream.code() is grpc.StatusCode.UNAVAILABLE
    await asyncio.wait_for(stopping, 10)


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [([5], 1), ([5, 6, 7], 1), ([2**20, 1], 2), ([2**20 - 1, 1, 1], 2), ([3 * 2**20, 3 * 2**20], 2)],
)
def test_answers_are_put_together_in_order_up_to_a_limit(sizes, messages):
    replies = [bytes([index]) * size for index, size in enumerate(sizes)]
    messages_sent = list(together(replies))
    assert b"".join(messages_sent) == b"".join(replies)
    assert len(messages_sent) == messages
    assert all(len(message) <= max(2**20, *sizes) for message in messages_sent)


async def test_a_client_that_reads_nothing_is_ended_when_others_need_the_room(rig, mib):
    it = await rig(max_message_bytes="1MiB", max_output_bytes="1000", max_bytes_in_flight="1MiB")
    stalled = it.stub.Stream()
    await stalled.write(calls(1))
    frame = await it.workers[0].next(Kind.CALLS)
    for ordinal in range(8):
        it.workers[0].answer(frame, answers(1, data=b"x" * mib), ordinal, last=False)
    it.workers[0].answer(frame, answers(1), 9)
    (held,) = it.gateway._streams.open
    while held._frames:  # all answers are in; the first can't be written, for nobody reads
        await asyncio.wait_for(it.workers[0].canaries.get(), 10)
    assert it.gateway._admission.full
    it.gateway._streams.end_stalled(held.writing_since + 9)
    assert it.gateway._streams.open
    it.gateway._streams.end_stalled(held.writing_since + 11)
    other = it.stub.Stream()
    await other.write(calls(2))
    it.workers[0].answer(await it.workers[0].next(Kind.CALLS), answers(2), 0)
    assert await read_ids(other, 1) == [2]
    assert it.gateway._admission.nbytes == 0
    other.cancel()
    stalled.cancel()


async def test_a_message_over_the_limit_ends_the_stream_and_is_counted(rig, mib):
    it = await rig(max_message_bytes="1MiB", max_output_bytes="1000")
    stream = it.channel.stream_stream("/layerwire.v1.LayerwireService/Stream")()
    await stream.write(b"\x0a" * (mib + 1))
    assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"larger than max ({mib + 1} vs. {mib}), the server's --max-message-bytes" in await stream.details()
    assert it.count("layerwire_rejected_total", reason="message_bytes") == 1
    assert it.workers[0].frames.empty()


async def test_a_cancellation_of_too_many_calls_ends_the_stream_and_is_counted(rig):
    it = await rig()
    stream = it.stub.Stream()
    await stream.write(pb.StreamRequest(cancel=pb.Cancellation(ids=range(8192))))
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await stream.details() == "stream: cancel must be at most 65536 bytes a message, got 65544"
    assert it.count("layerwire_rejected_total", reason="cancellations") == 1
