"""Large messages of streams: in parts both ways, in the link's memory, and every byte that is held is released."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire import message_parts
from layerwire_server.link import Kind

STREAM = "/layerwire.v1.LayerwireService/Stream"
DATA = bytes(range(256)) * 12288  # 3 MiB


def message(call_id, data=DATA):
    call = pb.Call(id=call_id, activate=pb.ActivateRequest(operator={"relu": {}}))
    call.activate.input.data = data
    return pb.StreamRequest(calls=pb.Calls(calls=[call])).SerializeToString()


def answer(call_id, data=DATA):
    one = pb.Answer(id=call_id)
    one.activate.output.data = data
    return pb.StreamResponse(answers=[one]).SerializeToString()


def cut(content):
    return list(message_parts.parts([content], len(content)))


async def write(stream, *messages):
    for one in messages:
        await stream.write(one)


async def read(stream):
    """The next message and in how many it came."""
    assembly, count = message_parts.Assembly(lambda nbytes: memoryview(bytearray(nbytes))), 0
    while True:
        one = await asyncio.wait_for(stream.read(), 10)
        assert one is not grpc.aio.EOF
        count += 1
        whole = assembly.add(one) if one[0] == message_parts.TAG else one
        if whole is not None:
            return bytes(whole), count


def assert_nothing_is_held(it):
    (held,) = it.gateway._streams.open
    assert held._unread_bytes == held._held_bytes == it.gateway._admission.nbytes == 0


async def test_large_messages_come_and_go_in_parts(rig):
    it = await rig()
    stream = it.channel.stream_stream(STREAM)()
    assert dict(iter(await stream.initial_metadata()))[message_parts.KEY] == "1"
    for number in range(1, 5):  # the first by the socket, the others in the link's memory
        first, *rest = cut(message(number))
        await write(stream, first, message(100 + number, b"small"))
        small = await it.workers[0].next(Kind.CALLS)  # others may come between the parts
        assert small.payload == message(100 + number, b"small")
        await write(stream, *rest)
        frame = await it.workers[0].next(Kind.CALLS)
        assert bytes(frame.payload) == message(number)
        it.workers[0].answer(small, answer(100 + number, b"small"), 0)
        assert await read(stream) == (answer(100 + number, b"small"), 1)
        it.workers[0].answer(frame, answer(number), 0)
        assert await read(stream) == (answer(number), 7)
    assert_nothing_is_held(it)
    stream.cancel()


async def test_clients_that_send_no_parts_get_none(rig):
    it = await rig()
    stream = it.channel.stream_stream(STREAM)()
    await write(stream, message(1))
    it.workers[0].answer(await it.workers[0].next(Kind.CALLS), answer(1), 0)
    assert await read(stream) == (answer(1), 1)
    await write(stream, message_parts.EMPTY, message(2))
    it.workers[0].answer(await it.workers[0].next(Kind.CALLS), answer(2), 0)
    assert await read(stream) == (answer(2), 7)
    assert_nothing_is_held(it)
    stream.cancel()


async def test_a_large_cancellation_is_refused_in_parts_too(rig):
    it = await rig()
    stream = it.channel.stream_stream(STREAM)()
    content = pb.StreamRequest(cancel=pb.Cancellation(ids=range(10_000))).SerializeToString()
    await write(stream, *message_parts.parts([content], len(content)))
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "cancel must be at most" in await stream.details()


async def test_what_is_too_large_is_refused_by_its_first_part(rig, mib):
    it = await rig(max_message_bytes="2MiB", max_output_bytes="1000")
    stream = it.channel.stream_stream(STREAM)()
    await write(stream, cut(message(1))[0])
    assert await stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert f"larger than max ({len(message(1))} vs. {2 * mib})" in await stream.details()
    assert it.count("layerwire_rejected_total", reason="message_bytes") == 1


@pytest.mark.parametrize("wrong", [[1], [0, 0]], ids=["no first", "two first"])
async def test_parts_out_of_order_end_the_stream(rig, wrong):
    it = await rig()
    stream = it.channel.stream_stream(STREAM)()
    pieces = cut(message(1))
    await write(stream, *(pieces[index] for index in wrong))
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await stream.details() == "stream: part must be the next of its message"
    assert it.gateway._admission.nbytes == 0


async def test_a_message_goes_on_though_its_stream_holds_enough(rig, mib):
    it = await rig(max_message_bytes="4MiB", max_output_bytes="1000", max_bytes_in_flight="4MiB")
    stream = it.channel.stream_stream(STREAM)()
    first, *rest = cut(message(1))
    large = message(2, bytes(4 * mib - 100))  # all that the gateway may hold
    await write(stream, first, large, *rest)
    frames = [await it.workers[0].next(Kind.CALLS) for _ in range(2)]
    assert [bytes(frame.payload) for frame in frames] == [large, message(1)]
    for frame, number in zip(frames, (2, 1), strict=True):
        it.workers[0].answer(frame, answer(number), 0)
        assert (await read(stream))[0] == answer(number)
    assert_nothing_is_held(it)
    stream.cancel()


async def test_a_message_in_a_dead_workers_memory_goes_to_the_next(rig):
    it = await rig()
    stream = it.channel.stream_stream(STREAM)()
    for number in (1, 2):  # memory is shared from the second on
        await write(stream, *cut(message(number)))
        it.workers[0].answer(await it.workers[0].next(Kind.CALLS), answer(number, b""), 0)
        await read(stream)
    await write(stream, *cut(message(3)))
    frame = await it.workers[0].next(Kind.CALLS)
    await it.workers[0].die()
    await it.workers[0].start()
    again = await it.workers[0].next(Kind.CALLS)
    assert again.frame == frame.frame
    assert bytes(again.payload) == message(3)
    it.workers[0].answer(again, answer(3), 0)
    assert (await read(stream))[0] == answer(3)
    assert_nothing_is_held(it)
    stream.cancel()


async def test_what_a_stream_is_told_of_memory_counts_as_unread_until_it_is_read(rig):
    it = await rig()
    stream = it.channel.stream_stream(STREAM)()
    for _ in range(3):
        await write(stream, pb.StreamRequest(share_memory=pb.ShareMemoryRequest()).SerializeToString())
        assert pb.StreamResponse.FromString((await read(stream))[0]).memory.name
    assert_nothing_is_held(it)
    stream.cancel()
