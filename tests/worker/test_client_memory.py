"""Answers in a client's memory: a worker that comes late, because it was given up, writes nowhere."""

from __future__ import annotations

import asyncio
import socket

import pytest

from layerwire.transport.client_memory import ClientMemory
from layerwire.v1 import layerwire_pb2
from layerwire.wire.shared_memory import PAGE_BYTES, Memory
from layerwire_server.link import Frame, Kind, Link
from layerwire_server.worker.client_memory import CLIENT_MEMORY, ClientMemories

ANSWER = memoryview(b"answer")
ROOM_BYTES = 100 * PAGE_BYTES


@pytest.fixture
def memory():
    """As the gateway has it."""
    return Memory.create(CLIENT_MEMORY, 3 * ROOM_BYTES)


def room(memory, view, client):
    """A call's room as one worker sees it."""
    shared = layerwire_pb2.SharedData(memory=memory.offer)
    shared.room.start, shared.room.nbytes = client._start_of(view), len(view)
    return ClientMemories().room(shared)


def test_a_worker_that_was_cut_off_before_it_answers_writes_nothing(memory):
    client = ClientMemory(memory.offer)
    view = client.lend(ROOM_BYTES)
    assert room(memory, view, client).put([ANSWER], lambda: False) is None
    assert bytes(view[:6]) == bytes(6)


def test_a_worker_that_is_cut_off_while_it_answers_keeps_the_room_from_all_others(memory):
    client = ClientMemory(memory.offer)
    view = client.lend(ROOM_BYTES)
    late, other = room(memory, view, client), room(memory, view, client)

    def cut_off():
        """Between the late worker's question and its writing: another answers, and the client goes on."""
        nonlocal view
        assert other.put([ANSWER], lambda: True) is None  # so its answer goes in the message
        view = None
        views = [client.lend(ROOM_BYTES // 2) for _ in range(2)]
        views.append(client.lend(1))
        starts = [client._start_of(one) for one in views]
        assert min(starts) >= PAGE_BYTES + ROOM_BYTES
        assert client.lend(ROOM_BYTES) is None  # the rest is the late worker's
        return True

    assert late.put([ANSWER], cut_off) is not None
    view = client.lend(ROOM_BYTES)
    assert client._start_of(view) == PAGE_BYTES
    assert not client._locked_sizes


def test_a_room_of_another_answer_is_not_kept(memory):
    client = ClientMemory(memory.offer)
    for _ in range(3):
        view = client.lend(ROOM_BYTES)
        assert client._start_of(view) == PAGE_BYTES
        assert room(memory, view, client).put([ANSWER], lambda: True) is not None
        assert bytes(view[:6]) == ANSWER
        del view


async def test_a_link_is_down_once_the_peer_has_closed_it_though_much_is_unread():
    ends, links = socket.socketpair(), []

    class Owner:
        def on_connect(self, link):
            links.append(link)

        def on_frame(self, link, frame):
            pass

        def on_disconnect(self, link, error):
            pass

    for end in ends:
        await asyncio.get_running_loop().create_connection(lambda: Link(Owner(), 1000), sock=end)
    one, other = links
    assert one.is_up()
    other.send(Frame(Kind.CALLS, 1, b"x" * 1000))
    other.close()
    assert not other.is_up()
    ends[1].close()  # as the loop would next
    assert not one.is_up()  # though nothing has been read
