"""The store's RPCs at a worker's loop: what it wasn't told of, what is too large, what a worker died of."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from google.rpc import status_pb2

from layerwire.errors import InternalError, InvalidArgumentError, LayerwireError, NotFoundError, from_status
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import program_pb2, store_pb2, tensor_pb2
from layerwire_server.link import QUARANTINED, Family, Flag, Frame, Kind
from layerwire_server.storage import NamedTensor, Store, part_of, write_safetensors
from tests.worker.conftest import WorkerRig

CONTENT = b"".join(write_safetensors({"a": ("float32", (2,), bytes(8))}))
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The rig's, as another process has it."""
    return Store(tmp_path / "store")


def ask(rig: WorkerRig, frame: Frame) -> None:
    rig.gateway.unary[frame.frame] = frame
    rig.gateway.link.send(frame)


async def answer_to(
    rig: WorkerRig, number: int, family: Family, request: bytes, **fields: object
) -> bytes | LayerwireError:
    """What the worker answers."""
    frame = Frame(Kind.UNARY, number, request, family=family, **fields)  # type: ignore[arg-type]
    ask(rig, frame)
    answer = await rig.gateway.kind(Kind.ANSWERS)
    assert answer.frame == number and answer.flags & Flag.LAST
    payload = bytes(answer.payload)
    return from_status(status_pb2.Status.FromString(payload)) if answer.flags & Flag.ERROR else payload


async def names(rig: WorkerRig, number: int) -> list[str]:
    answer = await answer_to(rig, number, Family.LIST_WEIGHTS, b"")
    assert isinstance(answer, bytes)
    return [info.name for info in store_pb2.ListWeightsResponse.FromString(answer).weights]


@pytest.mark.parametrize("kind", [Kind.NAMES_CHANGED, Kind.CANARY], ids=["told", "canary"])
async def test_names_that_another_process_gave_are_learned(rig: WorkerRig, store: Store, kind: Kind) -> None:
    store.name_weights({"w": NamedTensor(store.put_weights([CONTENT]), "a")})
    assert await names(rig, 1) == []
    ask(rig, Frame(kind, 2))
    await rig.gateway.kind(Kind.ANSWERS if kind is Kind.NAMES_CHANGED else Kind.CANARY_RESULT)
    assert await names(rig, 3) == ["w"]


async def test_pages(rig: WorkerRig, store: Store) -> None:
    digest = store.put_weights([CONTENT])
    store.name_weights({f"w{number}": NamedTensor(digest, "a") for number in range(5)})
    ask(rig, Frame(Kind.NAMES_CHANGED, 1))
    await rig.gateway.kind(Kind.ANSWERS)
    listed_names, token = [], ""
    for number in range(2, 5):
        request = store_pb2.ListWeightsRequest(prefix="w", page_size=2, page_token=token)
        answer = await answer_to(rig, number, Family.LIST_WEIGHTS, request.SerializeToString())
        assert isinstance(answer, bytes)
        page = store_pb2.ListWeightsResponse.FromString(answer)
        listed_names += [info.name for info in page.weights]
        token = page.next_page_token
    assert (listed_names, token) == ([f"w{number}" for number in range(5)], "")
    request = store_pb2.ListWeightsRequest(page_size=1001)
    error = await answer_to(rig, 9, Family.LIST_WEIGHTS, request.SerializeToString())
    assert isinstance(error, InvalidArgumentError) and error.field == "page_size"


async def test_a_part_is_looked_into(rig: WorkerRig, store: Store) -> None:
    part_of(store, DIGEST).write_bytes(CONTENT)
    header = store_pb2.UploadHeader(digest=DIGEST, size=len(CONTENT)).SerializeToString()
    answer = await answer_to(rig, 1, Family.CHECK_UPLOAD, header)
    assert isinstance(answer, bytes)
    (tensor,) = store_pb2.UploadResponse.FromString(answer).tensors
    assert (tensor.key, tensor.dtype, list(tensor.shape)) == ("a", tensor_pb2.DATA_TYPE_FLOAT32, [2])
    part_of(store, DIGEST).write_bytes(CONTENT[:-1])
    assert isinstance(await answer_to(rig, 2, Family.CHECK_UPLOAD, header), InvalidArgumentError)
    part_of(store, DIGEST).unlink()
    assert isinstance(await answer_to(rig, 3, Family.CHECK_UPLOAD, header), NotFoundError)


async def test_names_are_given_all_or_none(rig: WorkerRig, store: Store) -> None:
    stored = program_pb2.StoredTensor(digest=store.put_weights([CONTENT]), key="a")
    missing = program_pb2.StoredTensor(digest=stored.digest, key="b")
    good, bad = store_pb2.NamedWeights(name="good", tensor=stored), store_pb2.NamedWeights(name="bad", tensor=missing)
    for number, weights in enumerate(([good, bad], [good, good], []), start=1):
        request = store_pb2.NameWeightsRequest(weights=weights).SerializeToString()
        assert isinstance(await answer_to(rig, number, Family.NAME_WEIGHTS, request), LayerwireError)
    assert await names(rig, 8) == []
    request = store_pb2.NameWeightsRequest(weights=[good]).SerializeToString()
    assert await answer_to(rig, 9, Family.NAME_WEIGHTS, request) == b""
    assert await names(rig, 10) == ["good"]


async def test_what_workers_died_of_is_announced_and_then_refused(rig: WorkerRig) -> None:
    request = pb.PutWeightsRequest(
        name="w", tensor=tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_FLOAT32, data=bytes(4))
    )
    payload = request.SerializeToString()
    frame = Frame(Kind.UNARY, 1, payload, Flag.ISOLATE, Family.PUT_WEIGHTS)
    ask(rig, frame)
    assert (await rig.gateway.kind(Kind.STARTED)).ordinals == (0,)
    await rig.gateway.kind(Kind.ANSWERS)
    error = await answer_to(rig, 2, Family.PUT_WEIGHTS, payload, flags=Flag.ISOLATE, ordinals=(0 | QUARANTINED,))
    assert isinstance(error, InternalError)


async def test_garbage_is_refused(rig: WorkerRig) -> None:
    error = await answer_to(rig, 1, Family.PUT_PROGRAM, b"\xff")
    assert isinstance(error, InvalidArgumentError)
    assert error.message == "the message is no PutProgramRequest"
    assert isinstance(await answer_to(rig, 2, Family.PUT_PROGRAM, b"\x12\x00" * (5 << 20)), InvalidArgumentError)
