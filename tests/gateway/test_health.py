"""Health as load balancers see it, and reflection as tools see it."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from layerwire_server.gateway.service import SERVICE_NAME
from layerwire_server.link import Kind

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def check(it, service):
    return (await it.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=300)).status


async def next_status(watch):
    return (await asyncio.wait_for(watch.read(), 10)).status


async def test_serving_while_one_worker_is_well(rig):
    it = await rig(workers=2)
    names = ("", SERVICE_NAME, "worker/0", "worker/1")
    assert [await check(it, name) for name in names] == [SERVING] * 4
    await it.workers[0].die()
    await it.wait_for_health("worker/0", False)
    assert [await check(it, name) for name in names] == [SERVING, SERVING, NOT_SERVING, SERVING]
    await it.workers[1].die()
    await it.wait_for_health("worker/1", False)
    assert [await check(it, name) for name in names] == [NOT_SERVING] * 4
    await it.workers[0].start()
    await it.wait_for_health("", True)
    assert await check(it, "worker/0") == SERVING


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/grpc.health.v1.Health/Check", "HealthCheckRequest"),
        ("/grpc.health.v1.Health/Watch", "HealthCheckRequest"),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "ServerReflectionRequest"),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "ServerReflectionRequest"),
    ],
    ids=["Check", "Watch", "reflection v1", "reflection v1alpha"],
)
async def test_garbage_is_an_invalid_argument(rig, path, message):
    it = await rig(start_workers=False)
    call = it.channel.stream_stream(path)(iter([b"\x0a\x7f"]), timeout=300)
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await call.details() == f"the message is no {message}"


async def test_unknown_services(rig):
    it = await rig(start_workers=False)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(it, "worker/1")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = it.health.Watch(health_pb2.HealthCheckRequest(service="worker/1"))
    assert await next_status(watch) == SERVICE_UNKNOWN
    watch.cancel()


async def test_every_watcher_hears_every_change_whoever_leaves(rig):
    it = await rig(start_workers=False)
    watches = [it.health.Watch(health_pb2.HealthCheckRequest()) for _ in range(3)]
    assert [await next_status(watch) for watch in watches] == [NOT_SERVING] * 3
    watches.pop().cancel()
    await it.workers[0].start()
    assert [await next_status(watch) for watch in watches] == [SERVING] * 2
    await it.workers[0].die()
    assert [await next_status(watch) for watch in watches] == [NOT_SERVING] * 2
    for watch in watches:
        watch.cancel()


async def test_a_wrong_canary_takes_a_worker_out_and_has_it_replaced(rig):
    it = await rig(workers=2)
    it.workers[0].passes = False
    await it.wait_for_health("worker/0", False)
    assert it.count("layerwire_canary_total", worker="0", result="wrong") >= 1
    assert ("misbehaves", 0) in [(kind, values["worker"]) for kind, values in it.child.messages]
    assert await check(it, "") == SERVING
    it.workers[0].passes = True
    await it.wait_for_health("worker/0", True)


async def test_no_frame_goes_to_a_worker_before_its_canary_sang(rig):
    it = await rig(start_workers=False)
    it.workers[0].passes = None
    await it.workers[0].start()
    canary = await asyncio.wait_for(it.workers[0].canaries.get(), 10)
    method = it.channel.unary_unary("/layerwire.v1.LayerwireService/Activate")
    call = asyncio.ensure_future(method(b"x"))
    assert await check(it, "") == NOT_SERVING
    assert it.workers[0].frames.empty()
    it.workers[0].passes = True
    it.workers[0].send(canary._replace(kind=Kind.CANARY_RESULT))
    frame = await it.workers[0].next(Kind.UNARY)
    it.workers[0].answer(frame, b"y", 0)
    assert await call == b"y"


async def test_stopping_is_not_serving_for_good(rig):
    it = await rig(lame_duck_seconds="0.2")
    watch = it.health.Watch(health_pb2.HealthCheckRequest())
    assert await next_status(watch) == SERVING
    stopping = asyncio.create_task(it.gateway.stop())
    assert await next_status(watch) == NOT_SERVING
    await asyncio.wait_for(stopping, 10)  # it has 30 s of grace, which no watcher uses up
    assert await watch.code() is grpc.StatusCode.UNAVAILABLE


async def test_stopping_ends_reflection_that_nobody_asks_anything(rig):
    it = await rig()
    method = it.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    stream = method()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString())
    assert await stream.read()
    await asyncio.wait_for(it.gateway.stop(), 10)
    assert await stream.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_the_services_and_gives_their_files(rig, version):
    it = await rig(start_workers=False)
    method = it.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    stream = method()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = {service.name for service in (await stream.read()).list_services_response.service}
    assert {SERVICE_NAME, "inference.GRPCInferenceService", "grpc.health.v1.Health"} < listed
    await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE_NAME))
    files = (await stream.read()).file_descriptor_response.file_descriptor_proto
    names = {descriptor_pb2.FileDescriptorProto.FromString(file).name for file in files}
    expected = {"layerwire.proto", "operators.proto", "program.proto", "tensor.proto"}
    assert {f"layerwire/v1/{name}" for name in expected} | {"google/protobuf/any.proto"} == names
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
