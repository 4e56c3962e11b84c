"""What a client changes in shared memory after it was looked at changes nothing that was decided by it."""

from __future__ import annotations

import numpy as np
import pytest

from layerwire.calls import Requests
from layerwire.transport.call import NOBODY, Call
from layerwire.transport.options import Options
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire.shared_memory import PAGE_BYTES, Memory
from layerwire_server.link import Frame, Kind
from layerwire_server.worker.client_memory import CLIENT_MEMORY
from layerwire_server.worker.reading.layouts import Layouts
from layerwire_server.worker.reading.requests import requests_of
from tests.programs.local import Worker

X = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
INDICES = np.array([[[[0, 2], [8, 10]]]], np.int64)
CALLS = {  # and which of the data the worker has copies of
    "relu": (Requests().relu(X), [False]),
    "max_pool2d": (Requests().max_pool2d(X, 2), [False]),
    "unpool": (Requests().max_unpool2d(X[:, :, :2, :2], INDICES, 2), [True, True]),
    "weights along": (Requests().linear(X, np.ones((3, 4), np.float32)), [True, True]),
}


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path)
    yield worker
    worker.close()


@pytest.mark.parametrize(("request_", "copies"), CALLS.values(), ids=CALLS)
def test_what_was_checked_is_a_copy(worker, request_, copies):
    call = Call(request_, Options(), NOBODY)
    memory = Memory.create(CLIENT_MEMORY, 2**20)
    shared = pb.SharedData(memory=memory.offer)
    for number, (place, _) in enumerate(call.entry.columns, start=1):
        memory.write(number * PAGE_BYTES, [call.data[place]])
        shared.ranges.add(start=number * PAGE_BYTES, nbytes=len(call.data[place]))
    group = pb.CallGroup(template=call.entry.template, ids=bytes(8), shared=shared)
    payload = pb.StreamRequest(calls=pb.Calls(groups=[group])).SerializeToString()
    frame = Frame(Kind.CALLS, 1, payload)
    ((request, _),) = requests_of(frame, Layouts())
    (decoded,) = worker.decoder.calls(request, frame)
    memory.view(PAGE_BYTES, 3 * PAGE_BYTES)[:] = b"\x7f" * 3 * PAGE_BYTES
    data = [content for content in decoded.contents if content is not None]
    assert [bytes(content) == call.data[place] for place, content in enumerate(data)] == copies


def test_memory_that_its_gateway_has_no_more_is_let_go(worker):
    memory, memories = Memory.create(CLIENT_MEMORY, 2**20), worker.decoder.memories
    shared = pb.SharedData(memory=memory.offer, ranges=[{"start": PAGE_BYTES, "nbytes": 1}])
    memories.data(shared)
    memories.sweep()
    assert len(memories._memories) == 1
    memory._close()
    memories.sweep()
    assert not memories._memories
