"""Uploads to a server that takes pieces, breaks off, or refuses, as a test tells it."""

from __future__ import annotations

import asyncio
import hashlib

import grpc
import numpy as np
import pytest
import pytest_asyncio

import layerwire
from layerwire.errors import DeadlineExceededError, InvalidArgumentError, UnavailableError
from layerwire.store import uploads
from layerwire.v1 import store_pb2, store_pb2_grpc

ARRAY = np.arange(600_000, dtype=np.float64)  # more than four pieces


class FakeStore(store_pb2_grpc.StoreServiceServicer):
    """Takes files; `ends` tells for each upload after how many bytes it ends, and by what status."""

    def __init__(self):
        self.parts, self.files, self.named, self.ends, self.offsets = {}, {}, {}, [], []
        self.reading = asyncio.Event()
        self.reading.set()

    async def GetUpload(self, request, context):
        there = self.files.get(request.digest, self.parts.get(request.digest, b""))
        return store_pb2.GetUploadResponse(complete=request.digest in self.files, received_bytes=len(there))

    async def Upload(self, requests, context):
        header = (await anext(requests)).header
        part = self.parts.setdefault(header.digest, bytearray())
        del part[header.offset :]
        self.offsets.append(header.offset)
        room, code = self.ends.pop(0) if self.ends else (None, None)
        async for request in requests:
            if room is not None and len(part) - header.offset >= room:
                await context.abort(code, "as told")
            await self.reading.wait()
            part += request.data
        assert (len(part), hashlib.sha256(part).hexdigest()) == (header.size, header.digest)
        self.files[header.digest] = bytes(part)
        return store_pb2.UploadResponse(digest=header.digest)

    async def NameWeights(self, request, context):
        self.named.update({named.name: named.tensor.key for named in request.weights})
        return store_pb2.NameWeightsResponse()


@pytest_asyncio.fixture
async def fake():
    server = grpc.aio.server()
    store = FakeStore()
    store_pb2_grpc.add_StoreServiceServicer_to_server(store, server)
    store.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield store
    store.reading.set()
    await server.stop(None)


@pytest.fixture
def pauses(monkeypatch):
    """What uploads pause before another attempt, none of it slept."""
    counts = []

    def pause(failures, _chance):
        counts.append(failures)
        return 0.0

    monkeypatch.setattr(uploads.retry, "backoff_seconds", pause)
    return counts


async def test_large_weights_go_in_pieces(fake):
    async with layerwire.AsyncClient(fake.address) as lw:
        digest = await lw.put_weights("w", ARRAY)
        assert fake.files[digest].endswith(ARRAY.tobytes())
        assert fake.named == {"w": "tensor"}
        assert await lw.put_weights("again", ARRAY) == digest
    assert fake.offsets == [0]  # what was there wasn't sent


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED], ids=lambda code: code.name)
async def test_what_broke_off_goes_on(fake, pauses, code):
    fake.ends = [(1 << 20, code), (0, code), (1 << 20, code)]
    async with layerwire.AsyncClient(fake.address) as lw:
        digest = await lw.put_weights("w", ARRAY)
    assert fake.files[digest].endswith(ARRAY.tobytes())
    first, second, third, fourth = fake.offsets
    assert first == 0 and 1 << 20 < second == third < fourth
    assert pauses == [1, 1, 2]  # attempts that brought something across count anew


async def test_it_gives_up_when_nothing_comes_across(fake, pauses):
    fake.ends = [(0, grpc.StatusCode.UNAVAILABLE)] * 99
    async with layerwire.AsyncClient(fake.address) as lw:
        with pytest.raises(UnavailableError, match="as told"):
            await lw.put_weights("w", ARRAY)
    assert len(fake.offsets) == uploads.ATTEMPTS
    assert fake.named == {}


async def test_what_is_refused_is_not_sent_again(fake, pauses):
    fake.ends = [(1 << 20, grpc.StatusCode.INVALID_ARGUMENT)]
    async with layerwire.AsyncClient(fake.address) as lw:
        with pytest.raises(InvalidArgumentError, match="as told"):
            await lw.put_weights("w", ARRAY)
    assert (fake.offsets, pauses) == ([0], [])


async def test_a_server_that_takes_nothing_is_waited_for_no_longer_than_told(fake):
    fake.reading.clear()
    async with layerwire.AsyncClient(fake.address, timeout=0.3) as lw:
        with pytest.raises(DeadlineExceededError, match="took nothing for 0.3 s"):
            await lw.put_weights("w", np.zeros(64 << 20, np.uint8))


async def test_progress_and_names_of_a_file(fake, tmp_path):
    import safetensors.numpy

    path, progress = tmp_path / "f.safetensors", []
    safetensors.numpy.save_file({"a": ARRAY, "b": ARRAY[:3]}, path, metadata={"made": "here"})
    size = path.stat().st_size
    async with layerwire.AsyncClient(fake.address) as lw:
        assert await lw.import_weights(path, "net/", progress=lambda *args: progress.append(args)) == ["net/a", "net/b"]
    assert fake.named == {"net/a": "a", "net/b": "b"}
    assert [there for there, _ in progress] == sorted(there for there, _ in progress)
    assert progress[-1] == (size, size)
    assert next(iter(fake.files.values())) == path.read_bytes()


def test_elements_are_not_copied_before_they_are_sent():
    from layerwire.wire import arrays

    content = arrays.content("put_weights", "array", ARRAY)
    assert np.shares_memory(np.frombuffer(content.read(), np.uint8), ARRAY)
    turned = arrays.content("put_weights", "array", ARRAY.reshape(600, 1000).T)
    assert turned.read().tobytes() == ARRAY.reshape(600, 1000).T.tobytes()


@pytest.mark.parametrize("wrong", [({}, None), ({"a": ARRAY}, ARRAY), (5, ARRAY)], ids=["empty", "both", "number"])
async def test_wrong_arguments(fake, wrong):
    async with layerwire.AsyncClient(fake.address) as lw:
        with pytest.raises(TypeError, match="put_weights: "):
            await lw.put_weights(*wrong)
