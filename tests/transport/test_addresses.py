"""Where calls go and what goes with them: several addresses, readiness, options, metadata."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import layerwire
from layerwire import errors
from layerwire.transport import reasons
from layerwire.v1 import layerwire_pb2 as pb
from tests.transport.fake_server import NOT_SERVING, SERVING
from tests.transport.rows import ROW, assert_own_answers, keep, numbered


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("localhost", ""),
        ("", ""),
        ("localhost:", ""),
        ("localhost:0", ""),
        ("localhost:65536", ""),
        ("localhost:\u0661", ""),
        (":50051", ""),
        ("local host:1", ""),
        ("user@host:1", ""),
        ("unix:", ""),
        ("http://localhost:50051", ", without a scheme"),
        ("::1:50051", ", with brackets round IPv6"),
        ("fe80:1:2:3:4:5:6:7:50051", ", with brackets round IPv6"),
    ],
)
def test_what_is_no_address(address, words):
    with pytest.raises(ValueError, match=f'^address must be "host:port"{words}, got "{address}"$'):
        layerwire.Client(address)
    with pytest.raises(ValueError, match="^address must be"):
        layerwire.AsyncClient(["localhost:1", address])


@pytest.mark.parametrize("address", [None, 50051, b"localhost:1", ["localhost:1", 2]], ids=str)
def test_an_address_is_text(address):
    with pytest.raises(TypeError, match='^address must be "host:port", got '):
        layerwire.Client(address)


@pytest.mark.parametrize(
    "address",
    ["localhost:1", "a_b.example-1:65535", "[::1]:1", "[fe80::1%eth0]:1", "unix:/a", "dns:///a:1", "ipv4:1.2.3.4:5"],
)
def test_what_is_an_address(address):
    assert address in repr(layerwire.Client(address))


UNREACHED = {
    "refused": ("127.0.0.1:1", "connection refused; is a server running there"),
    "socket": ("unix:/nowhere/layerwire", "there is no such socket"),
}


@pytest.mark.parametrize(("address", "words"), UNREACHED.values(), ids=UNREACHED)
def test_why_a_server_cannot_be_reached(address, words):
    with layerwire.Client(address, timeout=300) as lw:
        with pytest.raises(errors.UnavailableError, match=f"^relu: {address}: {words}"):
            lw.relu(ROW)
        with pytest.raises(errors.UnavailableError, match=f"^{address}: {words}"):
            lw.server_info()


@pytest.mark.parametrize(
    "details",
    [
        "errors resolving a:1: [field:hostname lookup error:address lookup failed for a:1: Domain name not found]",
        "DNS resolution failed for a:1: C-ares status is not ARES_SUCCESS name=a is_balancer=0: Domain name not found",
    ],
    ids=["grpcio-1.85", "grpcio-1.74"],
)
def test_a_host_that_is_not_there(details):
    assert reasons.explain(details, tls=False) == "there is no such host"


def test_reasons_without_a_sentence_are_passed_on():
    for details in ("failed to connect to all addresses; last error: of a new kind", "Socket closed", ""):
        assert reasons.explain(details, tls=False) == details


async def test_calls_go_round_addresses(serve):
    servers = [serve(), serve(), serve()]
    async with layerwire.AsyncClient([server.address for server in servers]) as lw:
        connections = lw._session.engine().connections
        while not all(connection.available for connection in connections):
            await asyncio.sleep(0)
        rows = numbered(300)
        assert_own_answers(rows, await asyncio.gather(*(lw.relu(row) for row in rows)))
    assert [len(server.calls) for server in servers] == [100, 100, 100]


async def test_an_address_that_is_not_serving_is_left_out(serve):
    resting, serving = serve(), serve()
    resting.health = NOT_SERVING
    async with layerwire.AsyncClient([resting.address, serving.address]) as lw:
        rows = numbered(20)
        assert_own_answers(rows, await asyncio.gather(*(lw.relu(row) for row in rows)))
        assert (len(resting.calls), len(serving.calls)) == (0, 20)
        resting.health, serving.health = SERVING, NOT_SERVING
        connections = lw._session.engine().connections
        while [connection.available for connection in connections] != [True, False]:
            await asyncio.sleep(0)
        assert_own_answers(rows, await asyncio.gather(*(lw.relu(row) for row in rows)))
    assert (len(resting.calls), len(serving.calls)) == (20, 20)


async def test_a_broken_address_is_left_out_and_its_calls_go_elsewhere(serve):
    broken, whole = serve(keep), serve()
    async with layerwire.AsyncClient([broken.address, whole.address]) as lw:
        connections = lw._session.engine().connections
        while not all(connection.available for connection in connections):
            await asyncio.sleep(0)
        rows = numbered(20)
        answers = asyncio.gather(*(lw.relu(row) for row in rows))
        await broken.until(lambda: len(broken.calls) == 10)
        await asyncio.to_thread(broken.stop)
        assert_own_answers(rows, await answers)
        assert_own_answers(rows, await asyncio.gather(*(lw.relu(row) for row in rows)))


async def test_addresses_without_a_health_service_are_used(serve):
    servers = [serve(health=None), serve(health=None)]
    async with layerwire.AsyncClient([server.address for server in servers]) as lw:
        await lw.wait_ready()
        assert_own_answers(numbered(4), await asyncio.gather(*(lw.relu(row) for row in numbered(4))))


async def test_wait_ready(serve):
    server = serve()
    server.health = NOT_SERVING
    async with layerwire.AsyncClient(server.address) as lw:
        with pytest.raises(errors.DeadlineExceededError, match="NOT_SERVING"):
            await lw.wait_ready(timeout=0.1)
        ready = asyncio.ensure_future(lw.wait_ready())
        server.health = SERVING
        await ready
        await asyncio.to_thread(server.stop)
        with pytest.raises(errors.DeadlineExceededError, match=server.address):
            await lw.wait_ready(timeout=0.2)
        ready = asyncio.ensure_future(lw.wait_ready())
        await asyncio.to_thread(server.start)
        await ready


async def test_options_reach_the_server_and_timing_comes_back(serve):
    timing = pb.Timing(queue_seconds=0.5, batch_calls=3, worker=1, device="cpu")
    answer = pb.ActivateResponse(output={"dtype": 1, "shape": [1], "data": bytes(4)}, timing=timing)
    server = serve(lambda stream, call: stream.answer(id=call.id, activate=answer))
    async with layerwire.AsyncClient(server.address, timeout=None) as lw:
        view = lw.options(priority=3, deterministic=True).options(timing=True)
        value, timing = await view.relu(ROW)
        np.testing.assert_array_equal(value, [0])
        assert (timing.queue_seconds, timing.batch_calls, timing.worker, timing.device) == (0.5, 3, 1, "cpu")
        await lw.relu(ROW)
    assert server.calls[0].activate.options == pb.CallOptions(priority=3, deterministic=True, return_timing=True)
    assert server.calls[1].activate.options == pb.CallOptions()


async def test_metadata_and_token_are_sent(server):
    async with layerwire.AsyncClient(server.address, token="secret", metadata={"X-Team": "vision"}) as lw:
        await lw.relu(ROW)
    metadata = server.streams[0].metadata
    assert (metadata["authorization"], metadata["x-team"]) == ("Bearer secret", "vision")


async def test_names_of_stored_weights_go_as_names(serve):
    def check(stream, call):
        assert (call.linear.weight.name, call.linear.bias.name) == ("w", "b")
        stream.answer(id=call.id, linear=pb.LinearResponse(output=call.linear.input))

    server = serve(check)
    async with layerwire.AsyncClient(server.address) as lw:
        np.testing.assert_array_equal(await lw.linear(ROW, "w", "b"), ROW)
