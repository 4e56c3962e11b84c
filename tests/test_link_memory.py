"""Large payloads over the link: written once, read where they lie, released when nothing refers to them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from layerwire_server import link_memory
from layerwire_server.link import Flag, Frame, Kind, Link, LinkError
from layerwire_server.link_memory import RANGE, OwnMemory
from tests.served import PATIENCE_SECONDS

MOST_BYTES = 1 << 20
LARGE = os.urandom(600_000)


class End:
    """An end of a link that notes what comes."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()
        self.error: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.copies = []
        self.link: Link | None = None

    def on_connect(self, link):
        self.link = link

    def on_frame(self, link, frame):
        self.frames.put_nowait(frame)

    def on_disconnect(self, link, error):
        self.error.set_result(error)

    async def next(self):
        return await asyncio.wait_for(self.frames.get(), PATIENCE_SECONDS)


@contextlib.asynccontextmanager
async def ends():
    loop, pair, sockets = asyncio.get_running_loop(), (End(), End()), socket.socketpair()
    for end, sock in zip(pair, sockets, strict=True):
        await loop.create_connection(lambda end=end: Link(end, MOST_BYTES, end.copies.append), sock=sock)
    try:
        yield pair
    finally:
        for end in pair:
            end.link.close()


async def share(one, two):
    """Sends a large payload, so that the next can be lent."""
    one.link.send(Frame(Kind.CALLS, 1, LARGE))
    assert bytes((await two.next()).payload) == LARGE
    two.link.send(Frame(Kind.HELLO))
    await one.next()  # what came before it has come


async def test_payloads_are_lent_and_released():
    async with ends() as (one, two):
        await share(one, two)
        for number in range(20):  # more than there is room for at once
            one.link.send(Frame(Kind.ANSWERS, number, ordinals=(3,), flags=Flag.LAST), [b"ab", LARGE, memoryview(b"c")])
            frame = await two.next()
            assert bytes(frame.payload) == b"ab" + LARGE + b"c"
            assert (frame.frame, frame.ordinals, frame.flags) == (number, (3,), Flag.LAST)
            assert frame.payload.readonly
            assert (np.frombuffer(frame.payload, np.uint8).ctypes.data + len(frame.payload)) % 64 == 0
        assert [nbytes // len(LARGE) for nbytes in one.copies] == [2, *20 * [1]]


async def test_corked_frames_leave_together_in_their_order(monkeypatch):
    async with ends() as (one, two):
        writes = []
        monkeypatch.setattr(one.link, "_write", lambda pieces, nbytes: writes.append(list(pieces)))
        payloads = [b"a", LARGE, b"", b"b" * 100_000]
        one.link.cork()
        for number, payload in enumerate(payloads):
            one.link.send(Frame(Kind.ANSWERS, number), [payload])
        assert not writes
        monkeypatch.undo()
        one.link.uncork()
        one.link.send(Frame(Kind.ANSWERS, 4), [b"c"])
        frames = [await two.next() for _ in range(5)]
        assert [(frame.frame, bytes(frame.payload)) for frame in frames] == [*enumerate([*payloads, b"c"])]
        one.link.cork()
        one.link.uncork()
        one.link.cork()
        one.link.send(Frame(Kind.ANSWERS, 5))
        one.link.close()
        await asyncio.wait_for(one.error, PATIENCE_SECONDS)
        one.link.uncork()


async def test_without_room_payloads_go_by_the_socket():
    async with ends() as (one, two):
        await share(one, two)
        held = []
        for number in range(10):
            one.link.send(Frame(Kind.CALLS, number, bytes([number]) + LARGE))
            held.append(await two.next())
        assert [bytes(frame.payload) for frame in held] == [bytes([number]) + LARGE for number in range(10)]
        assert [nbytes // len(LARGE) for nbytes in one.copies] == [2, *6 * [1], *4 * [2]]  # 4 MiB hold 6


async def test_pages_are_given_back_when_nothing_was_lent_for_a_while(monkeypatch):
    monkeypatch.setattr(link_memory, "_IDLE_SECONDS", 0.01)
    given_back = asyncio.Event()
    monkeypatch.setattr(OwnMemory, "give_back", lambda _: given_back.set())
    async with ends() as (one, two):
        await share(one, two)
        one.link.send(Frame(Kind.CALLS, 1, LARGE))
        frame = await two.next()
        assert not given_back.is_set()
        del frame
        await asyncio.wait_for(given_back.wait(), PATIENCE_SECONDS)


@pytest.mark.parametrize(
    "place", [b"", RANGE.pack(0, 10), RANGE.pack(4096, MOST_BYTES + 1), RANGE.pack(2**40, 10), RANGE.pack(2**64 - 1, 1)]
)
async def test_ranges_that_make_no_sense_end_the_link(place):
    async with ends() as (one, two):
        await share(one, two)
        one.link.send(Frame(Kind.CALLS, 2, place, Flag.LENT))
        assert isinstance(await asyncio.wait_for(two.error, PATIENCE_SECONDS), LinkError)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.CALLS, 2, RANGE.pack(4096, 10), Flag.LENT),
        Frame(Kind.SHARE_MEMORY),
        Frame(Kind.RELEASE_MEMORY, payload=bytes(8)),
    ],
)
async def test_memory_that_was_never_offered_ends_the_link(frame):
    async with ends() as (one, two):
        one.link.send(frame)
        assert isinstance(await asyncio.wait_for(two.error, PATIENCE_SECONDS), LinkError)


async def test_offers_that_lead_to_no_memory_are_passed_over():
    reader, _ = os.pipe()
    other = OwnMemory(MOST_BYTES)
    process, descriptor, _ = struct.unpack("<QQ16s", other.offer)
    async with ends() as (one, two):
        for offer in (
            b"short",
            struct.pack("<QQ16s", process, reader, b""),
            struct.pack("<QQ16s", process, 2**30, b""),
            struct.pack("<QQ16s", 2**31 - 1, 0, b""),
            struct.pack("<QQ16s", process, descriptor, b"another mark"),
        ):
            one.link.send(Frame(Kind.OFFER_MEMORY, payload=offer))
        one.link.send(Frame(Kind.CALLS, 5, b"alive"))
        assert (await two.next()).payload == b"alive"


@pytest.fixture
def lender():
    """A process that lends, and our end of the link to it."""
    script = "import sys; from tests.test_link_memory import lend; lend(int(sys.argv[1]))"
    ours, theirs = socket.socketpair()
    child = subprocess.Popen([sys.executable, "-c", script, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    yield child, ours
    child.kill()
    child.wait()


async def test_a_payload_outlives_the_process_that_lent_it(lender):
    """A peer that was killed leaves what it lent as it was, and nothing when that is released."""
    child, ours = lender
    try:
        end = End()
        await asyncio.get_running_loop().create_connection(lambda: Link(end, MOST_BYTES), sock=ours)
        assert bytes((await end.next()).payload) == LARGE_OF_CHILD
        frame = await end.next()
    finally:
        child.kill()
    await asyncio.wait_for(end.error, PATIENCE_SECONDS)
    assert memory_maps() == 1
    assert bytes(frame.payload) == LARGE_OF_CHILD
    del frame
    assert memory_maps() == 0


LARGE_OF_CHILD = bytes(range(256)) * 2000


def memory_maps():
    """How many maps of the memory of links this process has."""
    return Path("/proc/self/maps").read_text().count("layerwire-link")


def lend(descriptor):
    """A process that sends a payload, then lends one, until it is killed."""

    async def run():
        end = End()
        await asyncio.get_running_loop().create_connection(
            lambda: Link(end, MOST_BYTES), sock=socket.socket(fileno=descriptor)
        )
        for _ in range(2):
            end.link.send(Frame(Kind.CALLS, 1, LARGE_OF_CHILD))
            while end.link._memory.own is not None and not end.link._memory.own.is_shared:
                await asyncio.sleep(0.01)
        await asyncio.Event().wait()

    asyncio.run(run())
