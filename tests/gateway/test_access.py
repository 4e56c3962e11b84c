"""Who may come in: tokens and their scopes, checked before a request is read; streams whose token goes."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta

import grpc
import pytest
from google.protobuf import descriptor_pool

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import store_pb2
from layerwire_server.access.tokens import TokenFile
from layerwire_server.gateway.service import ADMIN_METHODS
from layerwire_server.link import Kind

ACTIVATE = "/layerwire.v1.LayerwireService/Activate"
STREAM = "/layerwire.v1.LayerwireService/Stream"
INFER_METHODS = {
    "layerwire.v1.LayerwireService": [
        *("Pool", "Unpool", "Linear", "Activate", "Convolve", "Normalize", "Run", "Differentiate", "Estimate"),
        *("Stream", "GetServerInfo"),
    ],
    "layerwire.v1.StoreService": ["ListWeights", "GetWeights", "ListPrograms", "GetProgram", "ListKernels"],
}
CALLS = pb.StreamRequest(calls=pb.Calls(calls=[pb.Call(id=1)])).SerializeToString()


@pytest.fixture
def tokens(tmp_path):
    file = TokenFile(tmp_path / "tokens.json")
    file.path.write_text("{}")
    return file


def bearer(secret):
    return (("authorization", f"Bearer {secret}"),)


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def rejections(rig):
    return [rig.count("layerwire_rejected_total", reason=reason) for reason in ("unauthenticated", "permission")]


def test_every_method_has_a_scope():
    """A method that is new has to be put on one of the two lists."""
    pool = descriptor_pool.Default()
    for name, infer_methods in INFER_METHODS.items():
        methods = {method.name for method in pool.FindServiceByName(name).methods}
        admin_methods = {method.rpartition("/")[2] for method in ADMIN_METHODS if method.startswith(f"/{name}/")}
        assert methods == admin_methods | set(infer_methods)
        assert not admin_methods & set(infer_methods)
    assert list(store_pb2.DESCRIPTOR.services_by_name) == ["StoreService"]


async def test_a_token_lets_a_call_in(rig, tokens):
    secret = tokens.add("ci", ["infer"])
    it = await rig(tokens=str(tokens.path))
    for scheme in ("Bearer", "bearer", "BEARER"):
        call = asyncio.ensure_future(
            it.channel.unary_unary(ACTIVATE)(b"x", metadata=(("authorization", f"{scheme} {secret}"),))
        )
        frame = await it.workers[0].next(Kind.UNARY)
        it.workers[0].answer(frame, b"y", 0)
        assert await call == b"y"
    assert rejections(it) == [0, 0]


WRONG = {
    "missing": (),
    "empty": (("authorization", ""),),
    "no-scheme": (("authorization", "SECRET"),),
    "basic": (("authorization", "Basic SECRET"),),
    "wrong": (("authorization", "Bearer SECREt"),),
    "no-token": (("authorization", "Bearer "),),
    "hash": (("authorization", "Bearer HASH"),),
    "too-long": (("authorization", "Bearer " + "x" * 5000),),
    "twice": (("authorization", "Bearer SECRET"), ("authorization", "Bearer SECRET")),
    "other-key": (("authorisation", "Bearer SECRET"),),
    "binary": (("authorization-bin", b"Bearer SECRET"),),
    "expired": (("authorization", "Bearer EXPIRED"),),
}


def fill(value, words):
    """The value with meanings in place of words."""
    if isinstance(value, bytes):
        return fill(value.decode(), words).encode()
    for word, meaning in words.items():
        value = value.replace(word, meaning)
    return value


@pytest.mark.parametrize("metadata", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("method", [ACTIVATE, "/layerwire.v1.StoreService/PutProgram", "/no.Such/Method"])
async def test_without_a_valid_token_nothing_runs(rig, tokens, metadata, method, caplog):
    secret = tokens.add("ci", ["infer", "admin"])
    expired = tokens.add("old", ["infer", "admin"], timedelta(hours=1))
    content = json.loads(tokens.path.read_text())
    content["tokens"][1]["expires"] = "2020-01-01T00:00:00Z"
    tokens.path.write_text(json.dumps(content))
    words = {"SECRET": secret, "EXPIRED": expired, "HASH": content["tokens"][0]["sha256"]}
    filled = [(key, fill(value, words)) for key, value in metadata]
    it = await rig(tokens=str(tokens.path))
    with caplog.at_level(logging.DEBUG, "layerwire_server"):
        error = await refusal(it.channel.unary_unary(method)(bytes(1 << 20), metadata=filled, timeout=30))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert secret not in str(error)
    assert it.workers[0].frames.empty()
    assert it.count("layerwire_received_bytes_total", method="Activate") == 0
    assert rejections(it) == [1, 0]
    assert secret not in caplog.text


async def test_a_stream_without_a_token_ends_before_it_begins(rig, tokens):
    it = await rig(tokens=str(tokens.path))
    stream = it.channel.stream_stream(STREAM)()
    assert (await stream.code(), await stream.initial_metadata()) == (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.aio.Metadata(),
    )
    assert it.workers[0].frames.empty()


@pytest.mark.parametrize("method", ADMIN_METHODS)
async def test_changes_need_the_scope_admin(rig, tokens, method):
    secret = tokens.add("ci", ["infer"])
    it = await rig(tokens=str(tokens.path))
    error = await refusal(it.channel.unary_unary(method)(b"", metadata=bearer(secret), timeout=30))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert method in str(error.details())
    assert rejections(it) == [0, 1]
    assert it.workers[0].frames.empty()


async def test_admin_may_all(rig, tokens):
    secret = tokens.add("ops", ["admin"])
    it = await rig(tokens=str(tokens.path))
    for method in ("/layerwire.v1.StoreService/ListWeights", "/layerwire.v1.StoreService/PutProgram"):
        call = asyncio.ensure_future(it.channel.unary_unary(method)(b"", metadata=bearer(secret), timeout=30))
        frame = await it.workers[0].next(Kind.UNARY)
        it.workers[0].answer(frame, b"", 0)
        frames = asyncio.ensure_future(it.workers[0].frames.get())  # PutProgram has every worker read the names anew
        await asyncio.wait({call, frames}, return_when=asyncio.FIRST_COMPLETED)
        if frames.done():
            it.workers[0].answer(frames.result(), b"", 0)
        frames.cancel()
        assert await call == b""


async def test_health_is_open_and_reflection_is_off(rig, tokens):
    secret = tokens.add("ci", ["infer"])
    it = await rig(tokens=str(tokens.path))
    await it.wait_for_health("", True)
    method = it.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    assert await method(metadata=bearer(secret)).code() is grpc.StatusCode.UNIMPLEMENTED
    assert await method().code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_stream_ends_when_its_token_is_revoked_and_its_heir_goes_on(rig, tokens):
    first, second = (tokens.add("ci", ["infer"]) for _ in range(2))
    it = await rig(tokens=str(tokens.path))
    streams = [it.channel.stream_stream(STREAM)(metadata=bearer(secret)) for secret in (first, second)]
    for stream in streams:
        await stream.initial_metadata()
    tokens.revoke(tokens.read()[0].id)
    assert await streams[0].code() is grpc.StatusCode.UNAUTHENTICATED
    assert "isn't valid any more" in await streams[0].details()
    error = await refusal(it.channel.unary_unary(ACTIVATE)(b"", metadata=bearer(first), timeout=30))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    await streams[1].write(CALLS)
    frame = await it.workers[0].next(Kind.CALLS)
    it.workers[0].answer(frame, b"answer", 0)
    assert await streams[1].read() == b"answer"
    streams[1].cancel()


async def test_a_new_token_is_noticed_and_a_broken_file_changes_nothing(rig, tokens):
    first = tokens.add("ci", ["infer"])
    it = await rig(tokens=str(tokens.path))
    good = tokens.path.read_text()
    tokens.path.write_text("broken")
    access = it.gateway._access
    access.refresh()
    stream = it.channel.stream_stream(STREAM)(metadata=bearer(first))
    await stream.initial_metadata()
    tokens.path.unlink()
    access.refresh()
    await it.channel.stream_stream(STREAM)(metadata=bearer(first)).initial_metadata()
    tokens.path.write_text(good)
    second = tokens.add("new", ["infer"])
    access.refresh()
    await it.channel.stream_stream(STREAM)(metadata=bearer(second)).initial_metadata()
    assert not stream.done()
