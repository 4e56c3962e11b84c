"""StoreService at the gateway: files come and go in pieces through real sockets, a fake worker gives the verdicts."""

from __future__ import annotations

import asyncio
import hashlib

import grpc
import pytest
import pytest_asyncio
from google.rpc import status_pb2

from layerwire.errors import InvalidArgumentError, ResourceExhaustedError, UnavailableError, to_status
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import store_pb2, store_pb2_grpc
from layerwire_server.gateway import store
from layerwire_server.link import SPAN, Kind
from layerwire_server.storage import write_safetensors

CONTENT = b"".join(write_safetensors({"a": ("float32", (3000,), bytes(12000))}))
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PIECE = 1000


@pytest_asyncio.fixture
async def it(rig, tmp_path):
    rig_with_store = await rig(store=str(tmp_path / "store"))
    rig_with_store.store = store_pb2_grpc.StoreServiceStub(rig_with_store.channel)
    rig_with_store.directory = tmp_path / "store"
    return rig_with_store


def header(offset=0, **changed):
    fields = {"digest": DIGEST, "size": len(CONTENT), "offset": offset, **changed}
    return store_pb2.UploadRequest(header=store_pb2.UploadHeader(**fields))


def pieces(offset=0):
    return [store_pb2.UploadRequest(data=CONTENT[at : at + PIECE]) for at in range(offset, len(CONTENT), PIECE)]


def parts(it):
    return sorted(path.name for path in (it.directory / "uploads").iterdir())


def files(it):
    return sorted(path.name for path in (it.directory / "weights").iterdir())


async def progress(it):
    return await it.store.GetUpload(store_pb2.GetUploadRequest(digest=DIGEST))


async def verdict(it, error=None):
    """Answers the next look into a file."""
    frame = await it.workers[0].next(Kind.UNARY)
    assert frame.family.name == "CHECK_UPLOAD"
    if error is not None:
        it.workers[0].answer(frame, to_status(error).SerializeToString(), error=True)
    else:
        it.workers[0].answer(frame, store_pb2.UploadResponse(digest=DIGEST).SerializeToString(), 0)
    return store_pb2.UploadHeader.FromString(bytes(frame.payload))


async def error_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def wait_for_bytes(it, nbytes):
    """Returns when so many bytes are in the part; there is no event for it on this side of the wire."""
    while (await progress(it)).received_bytes < nbytes:
        pass


async def test_a_file_is_in_the_store_once_a_worker_found_it_good(it):
    assert await progress(it) == store_pb2.GetUploadResponse()
    call = it.store.Upload(iter([header(), *pieces()]))
    assert (await verdict(it)).digest == DIGEST
    assert await call == store_pb2.UploadResponse(digest=DIGEST)
    assert await progress(it) == store_pb2.GetUploadResponse(complete=True, received_bytes=len(CONTENT))
    assert (files(it), parts(it)) == ([f"{DIGEST}.safetensors"], [])
    assert it.count("layerwire_requests_total", method="Upload", code="OK") == 1
    assert it.count("layerwire_received_bytes_total", method="Upload") > len(CONTENT)
    assert (it.gateway._admission.nbytes, it.gateway._admission.requests) == (0, 0)


async def test_it_goes_on_where_the_client_left_it(it):
    call = it.store.Upload()
    for message in (header(), *pieces()[:5]):
        await call.write(message)
    await wait_for_bytes(it, 4 * PIECE)
    call.cancel()
    there = (await progress(it)).received_bytes
    assert there in (4 * PIECE, 5 * PIECE)
    second = it.store.Upload(iter([header(there), *pieces(there)]))
    await verdict(it)
    assert (await second).digest == DIGEST


async def test_a_file_that_the_worker_refuses_is_gone(it):
    call = it.store.Upload(iter([header(), *pieces()]))
    await verdict(it, InvalidArgumentError("upload: safetensors: no"))
    error = await error_of(call)
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "upload: safetensors: no")
    assert (files(it), parts(it)) == ([], [])


async def test_without_a_verdict_the_part_stays(it):
    call = it.store.Upload(iter([header(), *pieces()]))
    await verdict(it, UnavailableError("no worker"))
    assert (await error_of(call)).code() is grpc.StatusCode.UNAVAILABLE
    assert (await progress(it)).received_bytes == len(CONTENT)
    again = it.store.Upload(iter([header(len(CONTENT))]))
    await verdict(it)
    await again
    assert files(it) == [f"{DIGEST}.safetensors"]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "upload: header is required"),
        (pieces()[:1], "upload: header is required"),
        ([header(), header()], "upload: data is required"),
        ([header(digest="../../etc/passwd")], "digest must be 64 hexadecimal digits"),
        ([header(digest=DIGEST.upper())], "digest must be 64 hexadecimal digits"),
        ([header(digest="0" * 64), *pieces()], "with digest 000"),
        ([header(), *pieces(), *pieces()[:1]], "upload: more bytes came"),
        ([header(offset=5)], "upload: offset must be at most"),
        (
            [header(), store_pb2.UploadRequest(data=bytes(store.MAX_PIECE_BYTES + 100))],
            "upload: data must be at most",
        ),
    ],
    ids=["nothing", "no-header", "two", "path", "capitals", "digest", "long", "offset", "piece"],
)
async def test_what_is_wrong_leaves_the_store_as_it_was(it, messages, words):
    error = await error_of(it.store.Upload(iter(messages)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.details()
    assert error.details().count("upload:") == 1
    assert (files(it), parts(it)) == ([], [])
    assert it.workers[0].frames.empty()


async def test_a_file_that_ends_too_soon_can_be_gone_on_with(it):
    error = await error_of(it.store.Upload(iter([header(), *pieces()[:-1]])))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"ended after 12000 of {len(CONTENT)} bytes" in error.details()
    assert (await progress(it)).received_bytes == 12000
    assert files(it) == []


async def test_garbage_is_refused(it):
    for method, call in (
        ("Upload", it.channel.stream_unary(f"/{store.SERVICE_NAME}/Upload")(iter([b"\xff"]))),
        ("GetUpload", it.channel.unary_unary(f"/{store.SERVICE_NAME}/GetUpload")(b"\xff")),
    ):
        error = await error_of(call)
        assert (error.code(), error.details()) == (
            grpc.StatusCode.INVALID_ARGUMENT, f"the message is no {method}Request"
        )  # fmt: skip


async def test_over_the_limit_nothing_stays(rig, tmp_path):
    it = await rig(store=str(tmp_path / "store"), max_store_bytes="5000")
    it.store, it.directory = store_pb2_grpc.StoreServiceStub(it.channel), tmp_path / "store"
    call = it.store.Upload()
    await call.write(header())  # no piece: grpc.aio has its own word for a write to a call that has ended
    error = await error_of(call)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert it.count("layerwire_rejected_total", reason="store_bytes") == 1
    assert (files(it), parts(it)) == ([], [])


async def test_an_uploader_that_falls_silent_is_ended_and_its_part_stays(it, monkeypatch):
    monkeypatch.setattr(store, "STALL_SECONDS", 0.2)
    call = it.store.Upload()
    await call.write(header())
    await call.write(pieces()[0])
    error = await error_of(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "no piece came for 0.2 s" in error.details()
    assert (await progress(it)).received_bytes == PIECE


async def test_the_same_file_again_ends_the_first(it):
    first = it.store.Upload()
    for message in (header(), *pieces()[:3]):
        await first.write(message)
    await wait_for_bytes(it, 2 * PIECE)
    second = it.store.Upload(iter([header(PIECE), *pieces(PIECE)]))
    await verdict(it)
    await second
    for message in pieces()[3:]:
        try:
            await first.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            break
    assert (await error_of(first)).code() is grpc.StatusCode.UNAVAILABLE
    assert files(it) == [f"{DIGEST}.safetensors"]


async def download(it, begin, end, digest=DIGEST):
    call = it.store.GetWeights(store_pb2.GetWeightsRequest(name="w"))
    frame = await it.workers[0].next(Kind.UNARY)
    assert frame.family.name == "FIND_WEIGHTS"
    info = store_pb2.WeightsInfo(name="w")
    info.tensor.digest = digest
    place = store_pb2.GetWeightsResponse(info=info, data=SPAN.pack(begin, end))
    it.workers[0].answer(frame, place.SerializeToString(), 0)
    first, *rest = [message async for message in call]
    assert first.info == info
    return b"".join(message.data for message in (first, *rest))


async def test_weights_come_back(it):
    call = it.store.Upload(iter([header(), *pieces()]))
    await verdict(it)
    await call
    assert await download(it, 100, 3000) == CONTENT[100:3000]
    assert await download(it, 64, 64) == b""
    path = it.directory / "weights" / f"{DIGEST}.safetensors"
    path.write_bytes(CONTENT[:-1] + b"x")
    error = await error_of(download(it, 0, 10))
    assert error.code() is grpc.StatusCode.DATA_LOSS
    path.unlink()
    assert (await error_of(download(it, 0, 10))).code() is grpc.StatusCode.NOT_FOUND
    assert it.count("layerwire_requests_total", method="GetWeights", code="DATA_LOSS") == 1


@pytest.mark.parametrize("name", store.FORWARDED)
async def test_the_rest_goes_to_a_worker_and_all_learn_of_changes(rig, name):
    it = await rig(workers=2)
    family, changes = store.FORWARDED[name]
    call = asyncio.ensure_future(it.channel.unary_unary(f"/{store.SERVICE_NAME}/{name}")(b"request", timeout=30))
    tasks = [asyncio.create_task(worker.next(Kind.UNARY)) for worker in it.workers]
    (done,), (idle,) = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    holder, other = it.workers if done is tasks[0] else it.workers[::-1]
    idle.cancel()
    assert (done.result().family, bytes(done.result().payload)) == (family, b"request")
    holder.answer(done.result(), b"answer", 0)
    for worker in (holder, other) if changes else ():
        frame = await worker.next(Kind.NAMES_CHANGED)
        assert not call.done()
        worker.answer(frame, b"", 0)
    assert await call == b"answer"
    assert all(worker.frames.empty() for worker in it.workers)


async def test_a_refused_change_tells_nobody_and_counts_what_was_full(it):
    call = asyncio.ensure_future(it.store.NameWeights(store_pb2.NameWeightsRequest()))
    frame = await it.workers[0].next(Kind.UNARY)
    it.workers[0].answer(frame, to_status(ResourceExhaustedError("full")).SerializeToString(), error=True)
    assert (await error_of(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert it.count("layerwire_rejected_total", reason="store_bytes") == 1
    assert it.workers[0].frames.empty()


async def test_a_worker_that_dies_need_not_learn_of_a_change(it):
    call = asyncio.ensure_future(it.stub.PutWeights(pb.PutWeightsRequest(name="w")))
    frame = await it.workers[0].next(Kind.UNARY)
    it.workers[0].answer(frame, pb.PutWeightsResponse(name="w", digest="d").SerializeToString(), 0)
    await it.workers[0].next(Kind.NAMES_CHANGED)
    await it.workers[0].die()
    assert (await call).digest == "d"


async def test_an_error_brings_its_details(it):
    error = await error_of(it.store.Upload(iter([])))
    trailing = dict(iter(error.trailing_metadata()))
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    assert status.message == error.details()


async def test_the_store_is_told_of_by_health(it):
    await it.wait_for_health(store.SERVICE_NAME, True)
