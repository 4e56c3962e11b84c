"""Clients that misuse parts of messages: they neither make a gateway hold more than it may, nor keep it busy."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from layerwire.wire import message_parts
from layerwire.wire.protobuf import MalformedError
from layerwire_server.link import Kind
from tests.gateway.test_large import STREAM, answer, cut, message, read, write

SMALL = bytes(600 * 1024)


async def test_what_comes_between_the_parts_of_a_message_is_limited_too(rig):
    """A message of which one part never comes would else let its stream send on for ever."""
    it = await rig(max_message_bytes="4MiB", max_output_bytes="1000", max_stream_bytes="1MiB")
    stream = it.channel.stream_stream(STREAM)()
    first, *rest = cut(message(1))
    count = 30
    messages = [first, *[message(2, SMALL)] * count, *rest]
    writing = asyncio.create_task(write(stream, *messages))
    frames = [await it.workers[0].next(Kind.CALLS) for _ in range(7)]
    (held,) = it.gateway._streams.open
    for _ in range(5):
        await asyncio.wait_for(it.workers[0].canaries.get(), 10)
    assert it.workers[0].frames.empty()
    assert held._held_bytes < 6 * 2**20
    for number in range(count + 1):
        frames = frames or [await it.workers[0].next(Kind.CALLS)]
        it.workers[0].answer(frames.pop(0), answer(number, b""), 0)
        assert await read(stream) == (answer(number, b""), 1)
    assert held._held_bytes == it.gateway._admission.nbytes == 0
    await writing
    stream.cancel()


@pytest.mark.parametrize("depth", [1, 2, 900])
async def test_parts_are_not_of_parts(rig, depth):
    """Each level would be put together anew, with 60 MiB in 0.13 s; recursion ended it after 490."""
    it = await rig()
    stream = it.channel.stream_stream(STREAM)()
    content = message(1, b"")
    for _ in range(depth + 1):
        (content,) = message_parts.parts([content], len(content))
    await write(stream, content)
    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await stream.details() == "stream: part must be of calls or cancel"
    assert it.gateway._admission.nbytes == 0


async def test_empty_parts_change_nothing(rig):
    it = await rig()
    stream = it.channel.stream_stream(STREAM)()
    first, *rest = cut(message(1))
    empty = [message_parts.EMPTY] * 500
    await write(stream, *empty, first, *empty, *rest, *empty)
    frame = await it.workers[0].next(Kind.CALLS)
    assert bytes(frame.payload) == message(1)
    it.workers[0].answer(frame, answer(1), 0)
    assert (await read(stream))[0] == answer(1)
    stream.cancel()


@pytest.mark.parametrize("size", [0, 1, 2**63, 2**64 - 1])
async def test_a_size_that_is_a_lie_ends_its_stream_alone(rig, size):
    it = await rig()
    stream, other = (it.channel.stream_stream(STREAM)() for _ in range(2))
    (content,) = message_parts.parts([message(1, b"")], size)
    await write(stream, content)
    await write(other, message(2, b""))
    assert await stream.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    frame = await it.workers[0].next(Kind.CALLS)
    it.workers[0].answer(frame, answer(2, b""), 0)
    assert await read(other) == (answer(2, b""), 1)
    assert it.workers[0].frames.empty()
    other.cancel()


def test_a_part_beyond_the_size_is_refused():
    assembly = message_parts.Assembly(lambda nbytes: memoryview(bytearray(nbytes)))
    (content,) = message_parts.parts([b"12345"], 4)
    with pytest.raises(MalformedError):
        assembly.add(content)
