"""The gateway's gRPC server, by grpcio's own client: what handlers may do, and how RPCs end."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import pytest_asyncio

from layerwire_server.gateway.server import Server


class Handlers:
    """Handlers by name, and what became of their RPCs."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.over = asyncio.Event()
        self.release = asyncio.Event()
        self.seen = []

    async def echo(self, request, call):
        return request

    async def remaining(self, request, call):
        return repr(call.time_remaining()).encode()

    async def fail(self, request, call):
        raise ValueError("not foreseen")

    async def abort(self, request, call):
        await call.abort(grpc.StatusCode.NOT_FOUND, "nothing \u2713", (("key", "value"), ("key-bin", b"\xff")))

    async def wait(self, request, call):
        self.begun.set()
        try:
            await self.release.wait()
        finally:
            self.over.set()
        return request

    async def large(self, request, call):
        call.add_done_callback(lambda _: self.over.set())
        return bytes(1 << 20)

    async def count(self, request, call):
        for number in range(int(request)):
            await call.write(b"%d" % number)

    async def generate(self, requests, call):
        async for request in requests:
            yield request + b"!"

    async def join(self, requests, call):
        return b"".join([request async for request in requests])

    async def read_and_fail(self, requests, call):
        self.seen.append(await call.read())
        await call.abort(grpc.StatusCode.DATA_LOSS, "enough")

    async def flood(self, request, call):
        try:
            while True:
                await call.write(bytes(1 << 20))
                self.seen.append(1)
                self.begun.set()
        finally:
            self.over.set()


class Direct:
    """A handler without a task."""

    def __init__(self):
        self.cancelled = asyncio.Event()
        self.calls = asyncio.Queue()

    def begin(self, request, call):
        if request == b"fail":
            raise ValueError("not foreseen")
        call.on_cancel = self.cancelled.set
        self.calls.put_nowait((request, call))


class Rig:
    """A server, its handlers, and a channel."""

    async def start(self):
        it = self.handlers = Handlers()
        self.direct = Direct()
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods = {name: unary(getattr(it, name)) for name in ("echo", "remaining", "fail", "abort", "wait", "large")}
        methods |= {name: stream(getattr(it, name)) for name in ("count", "flood")}
        methods["generate"] = grpc.stream_stream_rpc_method_handler(it.generate)
        methods["read_and_fail"] = grpc.stream_stream_rpc_method_handler(it.read_and_fail)
        methods["join"] = grpc.stream_unary_rpc_method_handler(it.join)
        methods["direct"] = unary(self.direct)
        self.server = Server([("grpc.so_reuseport", 0)], [grpc.method_handlers_generic_handler("s", methods)])
        port = self.server.add_port("127.0.0.1:0")
        self.server.start()
        self.address = f"127.0.0.1:{port}"
        self.channel = grpc.aio.insecure_channel(self.address, [("grpc.use_local_subchannel_pool", 1)])

    def unary(self, name):
        return self.channel.unary_unary(f"/s/{name}")

    async def close(self):
        await self.channel.close()
        await self.server.stop(0)


@pytest_asyncio.fixture
async def rig():
    rig = Rig()
    await rig.start()
    yield rig
    await rig.close()


async def error_of(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 10)
    return caught.value


async def within(event):
    await asyncio.wait_for(event.wait(), 10)


async def test_answers_go_back_to_their_callers(rig):
    messages = [b"", b"1", bytes(100_000)] * 20
    assert await asyncio.gather(*(rig.unary("echo")(message) for message in messages)) == messages


async def test_all_kinds_of_methods(rig):
    assert [message async for message in rig.channel.unary_stream("/s/count")(b"3")] == [b"0", b"1", b"2"]
    assert [message async for message in rig.channel.unary_stream("/s/count")(b"0")] == []
    assert await rig.channel.stream_unary("/s/join")(iter([b"a", b"", b"b"])) == b"ab"
    generate = rig.channel.stream_stream("/s/generate")(iter([b"a", b"b"]))
    assert [message async for message in generate] == [b"a!", b"b!"]


@pytest.mark.parametrize("method", ["/s/other", "/other/echo", "nothing", "/s/\u00e9"])
async def test_what_is_not_served_is_unimplemented(rig, method):
    error = await error_of(rig.channel.unary_unary(method)(b""))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_handler_that_fails_ends_its_rpc_only(rig):
    for name, request in (("fail", b""), ("direct", b"fail")):
        error = await error_of(rig.unary(name)(request))
        assert (error.code(), error.details()) == (
            grpc.StatusCode.UNKNOWN,
            "Unexpected <class 'ValueError'>: not foreseen",
        )
    assert await rig.unary("echo")(b"1") == b"1"


async def test_an_abort_brings_code_details_and_metadata(rig):
    error = await error_of(rig.unary("abort")(b""))
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nothing \u2713")
    trailing = dict(iter(error.trailing_metadata()))
    assert (trailing["key"], trailing["key-bin"]) == ("value", b"\xff")
    stream = rig.channel.stream_stream("/s/read_and_fail")()
    await stream.write(b"1")
    assert await stream.code() is grpc.StatusCode.DATA_LOSS
    assert rig.handlers.seen == [b"1"]


async def test_deadlines_are_known(rig):
    assert await rig.unary("remaining")(b"") == b"None"
    assert 90 < float(await rig.unary("remaining")(b"", timeout=100)) < 101


@pytest.mark.parametrize("how", ["cancel", "deadline", "connection"])
async def test_a_handler_ends_with_its_client(rig, how):
    call = rig.unary("wait")(b"", timeout=0.3 if how == "deadline" else 30)
    waiting = asyncio.ensure_future(call)
    await within(rig.handlers.begun)
    if how == "cancel":
        call.cancel()
    elif how == "connection":
        await rig.channel.close()
    await within(rig.handlers.over)
    waiting.cancel()


async def test_a_handler_without_a_task_ends_with_its_client_and_may_answer_later(rig):
    call = rig.unary("direct")(b"1")
    asked = asyncio.ensure_future(call)
    request, server_call = await asyncio.wait_for(rig.direct.calls.get(), 10)
    server_call.finish(request + b"2")
    assert await asked == b"12"
    server_call.finish(b"again")  # it is over: nothing happens
    call = rig.unary("direct")(b"3")
    asked = asyncio.ensure_future(call)
    _, server_call = await asyncio.wait_for(rig.direct.calls.get(), 10)
    call.cancel()
    await within(rig.direct.cancelled)
    server_call.finish(b"too late")
    server_call.end(grpc.StatusCode.OK)
    assert await rig.unary("echo")(b"1") == b"1"
    asked.cancel()


async def test_callbacks_come_when_the_answer_is_out(rig):
    assert len(await rig.unary("large")(b"")) == 1 << 20
    await within(rig.handlers.over)


async def test_a_client_that_reads_nothing_stops_its_writer_until_it_leaves(rig):
    stream = rig.channel.unary_stream("/s/flood")(b"")
    await within(rig.handlers.begun)
    for _ in range(50):  # whatever is written from now on waits for the reader
        count = len(rig.handlers.seen)
        await rig.unary("echo")(b"")
        if count == len(rig.handlers.seen):
            break
    assert len(rig.handlers.seen) < 40
    stream.cancel()
    await within(rig.handlers.over)


async def test_stopping_waits_for_what_is_there_and_takes_no_more(rig):
    asked = asyncio.ensure_future(rig.unary("wait")(b"1"))
    await within(rig.handlers.begun)
    stopping = asyncio.create_task(rig.server.stop(30))
    await asyncio.sleep(0)
    async with grpc.aio.insecure_channel(rig.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        error = await error_of(channel.unary_unary("/s/echo")(b""))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not stopping.done()
    rig.handlers.release.set()
    assert await asked == b"1"
    await asyncio.wait_for(stopping, 10)


async def test_stopping_cancels_what_takes_longer_than_the_grace(rig):
    asked = asyncio.ensure_future(rig.unary("wait")(b"1"))
    await within(rig.handlers.begun)
    await asyncio.wait_for(rig.server.stop(0.01), 10)
    assert (await error_of(asked)).code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
    await within(rig.handlers.over)


async def test_an_address_that_cannot_be_had_says_so(rig):
    other = Server([("grpc.so_reuseport", 0)], [])
    with pytest.raises(RuntimeError, match=rig.address):
        other.add_port(rig.address)
