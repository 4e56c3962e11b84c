"""`layerwire bench` when something goes wrong: servers that die or lie, interrupts, files, overload."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc
from layerwire_bench.report import files
from tests.layerwire_bench.commands import BENCH, QUICK, RELU, UNCHECKED, bench


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_an_unreachable_server_is_a_sentence():
    address = f"127.0.0.1:{free_port()}"
    ended = bench(address, *RELU, *UNCHECKED, "--wait", "200ms")
    assert ended.returncode == 3
    assert f"{address}: unreachable" in ended.stderr
    assert "Traceback" not in ended.stderr


@contextmanager
def started(*words):
    """A load test whose lines on standard error are read one by one."""
    process = subprocess.Popen(
        [*BENCH, *map(str, words), *QUICK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_server_that_dies_midway_ends_the_run_and_leaves_what_there_was(tmp_path):
    command = [sys.executable, "-m", "tools.benchmarks.bare"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().split()[-1]
    found = tmp_path / "found.json"
    loads = ",".join(["2"] * 50)
    with started(address, *RELU, *UNCHECKED, "--by", "unary", "--concurrency", loads, "--json", found) as process:
        assert "1/50" in next(line for line in process.stderr if "calls/s" in line)
        server.kill()
        server.communicate()
        rest = process.stderr.read()
        process.wait(timeout=300)
    assert process.returncode == 3
    assert "no answer any more: UNAVAILABLE" in rest
    assert "Traceback" not in rest
    run = files.from_json(found.read_text())
    assert run.failure is not None
    assert run.points[0].calls > 0
    assert run.points[-1].errors["UNAVAILABLE"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_interrupted_it_reports_what_there_is(served, tmp_path, number):
    found = tmp_path / "found.json"
    loads = ",".join(["2"] * 50)
    with started(served.address, *RELU, *UNCHECKED, "--concurrency", loads, "--json", found) as process:
        assert any("1/50" in line for line in process.stderr)
        process.send_signal(number)
        rest = process.stderr.read()
        table = process.stdout.read()
        process.wait(timeout=300)
    assert process.returncode == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    assert "calls" in table
    run = files.from_json(found.read_text())
    assert run.interrupted
    assert 1 <= len(run.points) < 50
    assert not run.points[-1].errors


def test_interrupted_as_it_starts_it_says_so_and_no_more(served):
    words = [*BENCH, served.address, *RELU, *UNCHECKED]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert errors.startswith("Error: interrupted")


def test_a_file_that_cannot_be_written_costs_no_other(served, tmp_path):
    page = tmp_path / "page.html"
    ended = bench(served.address, *RELU, *UNCHECKED, "--concurrency", 1, "--csv", "/dev/full", "--html", page)
    assert ended.returncode == 4
    assert "/dev/full can't be written: No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "</html>" in page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_calls_that_an_overload_keeps_from_being_sent_are_told(served, tmp_path):
    found = tmp_path / "found.json"
    words = ["--rate", 900_000, "--duration", "500ms", "--max-errors", 1, "--json", found]
    ended = bench(served.address, *RELU, *UNCHECKED, *words)
    assert ended.returncode == 0, ended.stderr
    [point] = files.from_json(found.read_text()).points
    assert point.unsent > 100_000
    assert point.latency.p50_seconds > 0.01
    assert "due and never sent" in ended.stdout


def test_no_client_process_outlives_its_planner(served):
    with started(served.address, *RELU, *UNCHECKED, "--concurrency", "2,2,2,2,2", "--processes", 2) as process:
        assert any("1/5" in line for line in process.stderr)
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert len(children) >= 2
        watched = [os.pidfd_open(pid) for pid in children]
        process.kill()
        process.wait()
        for descriptor in watched:
            with os.fdopen(descriptor) as ended:
                poll = select.poll()
                poll.register(ended, 1)
                assert poll.poll(30_000), "a client process is still there"


class Lying(layerwire_pb2_grpc.LayerwireServiceServicer):
    """Answers relu as if every element were positive; every tenth call it refuses."""

    def __init__(self):
        self.count = 0

    async def Activate(self, request, context):
        self.count += 1
        if self.count > 20 and self.count % 10 == 0:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return pb.ActivateResponse(output=request.input)


@contextmanager
def lying():
    with asyncio.Runner() as runner:
        server = grpc.aio.server()
        layerwire_pb2_grpc.add_LayerwireServiceServicer_to_server(Lying(), server)

        async def begin():
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            return port

        port = runner.run(begin())
        yield runner, f"127.0.0.1:{port}"
        runner.run(server.stop(0))


def test_wrong_answers_are_loud_and_errors_are_counted_by_status(tmp_path):
    found = tmp_path / "found.json"
    with lying() as (runner, address):
        words = [*BENCH, address, *RELU, "--by", "unary", "--concurrency", "2", "--json", found, *QUICK]

        async def run():
            process = await asyncio.create_subprocess_exec(
                *map(str, words), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            output, errors = await process.communicate()
            return process.returncode, output.decode(), errors.decode()

        status, output, errors = runner.run(run())
    assert status == 1
    assert "WRONG ANSWERS: relu: output" in errors
    assert "wrong" in output.lower()
    [point] = files.from_json(found.read_text()).points
    assert point.wrong > 0
    assert point.errors.keys() == {"RESOURCE_EXHAUSTED"}
    assert point.parts[0].wrong == point.wrong
