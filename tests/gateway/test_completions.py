"""gRPC's sockets watched by the event loop: a server alone in its process, and clients in this one."""

from __future__ import annotations

import os
import subprocess
import sys

import grpc
import pytest

_SERVER = """
import asyncio, logging, sys
import grpc
from layerwire_server.gateway.server import Server

class Echo:
    def begin(self, request, call):
        call.finish(request)

class EchoStream:
    def begin(self, _, call):
        def take(message):
            if message is None:
                call.end(grpc.StatusCode.OK)
            else:
                call.send(message, lambda success: call.receive(take))
        call.receive(take)

class Wait:
    def begin(self, request, call):
        call.on_cancel = lambda: print("cancelled", flush=True)

logging.basicConfig(level=logging.INFO)

async def main():
    methods = {
        "Echo": grpc.unary_unary_rpc_method_handler(Echo()),
        "Wait": grpc.unary_unary_rpc_method_handler(Wait()),
        "Stream": grpc.stream_stream_rpc_method_handler(EchoStream()),
    }
    server = Server([], [grpc.method_handlers_generic_handler("s", methods)], alone=True)
    port = server.add_port(sys.argv[1])
    server.start()
    print(port, server._completions._descriptor is not None, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await server.stop(0.1)
    print("stopped", flush=True)

if sys.argv[2] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.fixture(params=["uvloop", "asyncio"])
def server(request, tmp_path):
    """A server's process and its address; by TCP."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, "127.0.0.1:0", request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        port, watched = process.stdout.readline().split()
        assert watched == "True"
        yield process, f"127.0.0.1:{port}"
        process.kill()


def test_a_server_by_a_unix_socket_is_watched_too(tmp_path):
    address = f"unix:{tmp_path}/socket"
    command = [sys.executable, "-c", _SERVER, address, "uvloop"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().split()[1] == "True"
        with grpc.insecure_channel(address) as channel:
            assert channel.unary_unary("/s/Echo")(b"hello", timeout=10) == b"hello"
        process.kill()


def test_messages_of_all_sizes_come_back(server):
    _, address = server
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(address, options) as channel:
        sizes = [0, 1, 1000, 70_000, 1_000_000, 3_000_000]
        echo = channel.unary_unary("/s/Echo")
        assert [len(echo(bytes(size), timeout=30)) for size in sizes] == sizes
        stream = channel.stream_stream("/s/Stream")
        messages = [b"%d" % number + bytes(number % 7 * 1000) for number in range(1000)]
        assert list(stream(iter(messages), timeout=60)) == messages


def test_many_connections_at_once_are_all_answered(server):
    """Far more sockets than gRPC handles at once, and of one call each, so that nothing else wakes the server."""
    _, address = server
    channels = [grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(150)]
    try:
        for _ in range(3):
            futures = [channel.unary_unary("/s/Echo").future(b"hello", timeout=30) for channel in channels]
            assert [future.result() for future in futures] == [b"hello"] * len(channels)
    finally:
        for channel in channels:
            channel.close()


def test_cancelled_and_expired_calls_are_noticed_without_traffic(server):
    process, address = server
    with grpc.insecure_channel(address) as channel:
        wait = channel.unary_unary("/s/Wait")
        future = wait.future(b"", timeout=30)
        channel.unary_unary("/s/Echo")(b"", timeout=10)  # the server has the call before this one
        future.cancel()
        assert process.stdout.readline() == "cancelled\n"
        with pytest.raises(grpc.RpcError) as caught:
            wait(b"", timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert process.stdout.readline() == "cancelled\n"


def test_it_stops_when_asked(server):
    process, address = server
    with grpc.insecure_channel(address) as channel:
        future = channel.unary_unary("/s/Wait").future(b"", timeout=30)
        channel.unary_unary("/s/Echo")(b"", timeout=10)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "cancelled\n"
        assert process.stdout.readline() == "stopped\n"
        assert future.exception(timeout=10) is not None
        assert process.wait(10) == 0


def test_a_thread_takes_over_where_grpc_watches_its_sockets_itself(tmp_path):
    """With gRPC's other listener, which an operator may ask for, or another version may bring."""
    environment = os.environ | {"GRPC_EXPERIMENTS": "event_engine_listener"}
    command = [sys.executable, "-c", _SERVER, "127.0.0.1:0", "uvloop"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        address = f"127.0.0.1:{process.stdout.readline().split()[0]}"
        with grpc.insecure_channel(address) as channel:
            echo = channel.unary_unary("/s/Echo")
            assert [echo(b"%d" % number, timeout=10) for number in range(100)] == [b"%d" % i for i in range(100)]
        process.stdin.write("\n")
        process.stdin.flush()
        _, errors = process.communicate(timeout=10)
        assert "a thread waits" in errors
        assert process.returncode == 0
