"""Clients at the end of a process and in children of a fork; each case is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from tests.transport.fake_server import FakeStream


def run(code: str, *args: str, **variables: str) -> str:
    """What a fresh process prints; stderr must stay empty, but for gRPC's own lines about forks."""
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, env={**os.environ, **variables}
    )
    said = [line for line in done.stderr.splitlines() if "fork_posix" not in line]
    assert (done.returncode, said) == (0, [])
    return done.stdout.strip()


def test_a_process_ends_quietly_with_a_client_open(server):
    code = """
        import sys, layerwire
        lw = layerwire.Client(sys.argv[1])
        future = lw.submit.relu([1.0])
        print(lw.relu([2.0]))
    """
    assert run(code, server.address) == "[2.]"


def test_a_forked_child_gets_a_connection_of_its_own(server):
    code = """
        import os, sys, threading, layerwire
        lw = layerwire.Client(sys.argv[1])
        lw.relu([1.0])
        stop = threading.Event()
        wrong = []

        def work(number):
            while not stop.is_set():
                if lw.relu([number, -1.0]).tolist() != [number, 0.0]:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(float(number),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for child in range(5):
            pid = os.fork()
            if not pid:
                with layerwire.Client(sys.argv[1]) as other:
                    good = lw.relu([child, -2.0]).tolist() == other.relu([child, -3.0]).tolist() == [child, 0.0]
                os._exit(0 if good else 1)
            print(os.waitpid(pid, 0)[1], end=" ")
        stop.set()
        for thread in threads:
            thread.join()
        print(wrong, lw.relu([3.0]))
    """
    assert run(code, server.address) == "0 0 0 0 0 [] [3.]"


def test_calls_in_flight_survive_a_fork(serve):
    held = []
    server = serve(lambda stream, call: held.append(call))
    code = """
        import os, sys, layerwire
        lw = layerwire.Client(sys.argv[1])
        futures = [lw.submit.relu([float(number)]) for number in range(10)]
        print("sent", flush=True)
        sys.stdin.readline()
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        print([future.result().tolist() for future in futures] == [[float(number)] for number in range(10)])
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), server.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    server.wait_for(lambda: len(held) == 10)
    server.script = FakeStream.reply
    assert child.communicate("go\n", timeout=500)[0] == "sent\nTrue\n"
    assert len(server.streams) == 2


# A child of a fork beside an open RPC of grpc.aio may crash in gRPC, though it does nothing of gRPC's (3 in 10 on
# grpcio 1.85, measured), unless this is set. What is tested here is what Layerwire says in those that live.
QUIET = {"GRPC_ENABLE_FORK_SUPPORT": "0"}
FORK = """
    import asyncio, multiprocessing, os, sys, layerwire

    def child(work):
        '''What `work` returns or raises in a child.'''
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                outcome = str(work())
            except layerwire.errors.ClientStateError as error:
                outcome = str(error)
            os.write(writer, outcome.encode())
            os._exit(0)
        os.close(writer)
        print(os.waitpid(pid, 0)[1], os.read(reader, 1000).decode(), flush=True)

    async def use(lw):
        return await lw.relu([1.0])

    async def fresh():
        async with layerwire.AsyncClient(sys.argv[1]) as lw:
            return await lw.relu([2.0])
"""
REFUSED = "0 this process was forked while an AsyncClient was connected, which gRPC does not survive: use spawn"


def forked(code: str, server) -> list[str]:
    return run(textwrap.dedent(FORK) + textwrap.dedent(code), server.address, **QUIET).splitlines()


def test_a_child_of_a_fork_beside_an_async_client_is_told(server):
    code = """
        lw = layerwire.AsyncClient(sys.argv[1])
        with asyncio.Runner() as runner:
            runner.run(use(lw))
            child(lambda: asyncio.run(use(lw)))
            child(lambda: asyncio.run(fresh()))
            child(lambda: layerwire.Client(sys.argv[1]).relu([1.0]))
            child(lambda: child(lambda: asyncio.run(use(lw))) or asyncio.run(fresh()))
            print(runner.run(use(lw)))
            runner.run(lw.close())
    """
    assert forked(code, server) == [REFUSED] * 5 + ["[1.]"]  # the grandchild's too


def test_a_fork_inside_a_running_loop_is_told(server):
    code = """
        async def main():
            async with layerwire.AsyncClient(sys.argv[1]) as lw:
                await use(lw)
                child(lambda: asyncio.run(use(lw)))
                print(await use(lw))

        asyncio.run(main())
    """
    assert forked(code, server) == [REFUSED, "[1.]"]


def test_a_fork_before_or_after_an_async_client_is_used(server):
    code = """
        lw = layerwire.AsyncClient(sys.argv[1])
        child(lambda: asyncio.run(use(lw)))
        print(asyncio.run(fresh()))
        child(lambda: asyncio.run(fresh()))
        child(lambda: asyncio.run(use(lw)))
        print(layerwire.Client(sys.argv[1]).relu([3.0]))
        child(lambda: asyncio.run(use(lw)))
    """
    assert run(textwrap.dedent(FORK) + textwrap.dedent(code), server.address).splitlines() == [
        "0 [1.]", "[2.]", "0 [2.]", "0 [1.]", "[3.]", "0 [1.]"
    ]  # fmt: skip


def test_a_proxy_is_not_asked_for_this_host(server):
    code = "import sys, layerwire; print(layerwire.Client(sys.argv[1]).relu([1.0]))"
    assert run(code, server.address, http_proxy="http://127.0.0.1:1", no_grpc_proxy="", no_proxy="") == "[1.]"
