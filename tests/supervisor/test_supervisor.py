"""The supervisor over real processes that do nothing: start, replacement, giving up, draining."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
import pytest_asyncio

from layerwire_server.child import log
from layerwire_server.config import load
from layerwire_server.supervisor import process
from layerwire_server.supervisor.supervisor import MAX_FAILED_STARTS, Backoff, CrashLoopError, Supervisor

ROOT = Path(__file__).parents[2]
MODULES = dict.fromkeys(("gateway", "worker"), "tests.supervisor.fake_child")
CALLS = ("relu", "OK")


class Watched(Supervisor):
    """Tells of each process it starts."""

    def __init__(self, *args):
        super().__init__(*args)
        self.started = {"gateway": asyncio.Queue(), "worker": asyncio.Queue()}

    async def start(self, spec, handle):
        process = await super().start(spec, handle)
        self.started[spec.role].put_nowait(process)
        return process

    async def next(self, role):
        """The next process of this role, when it is ready."""
        process = await asyncio.wait_for(self.started[role].get(), 20)
        await asyncio.wait_for(process.ready.wait(), 20)
        return process


class Run:
    """A supervisor at work."""

    def __init__(self, directory, flags):
        self.supervisor = Watched(load(flags), ["cpu"], directory, log.start("info", "text"), MODULES)
        self.stop, self.stop_now, self.ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self.supervisor.run(self.stop, self.stop_now, self.ready.set))

    async def finished(self):
        return await asyncio.wait_for(self.task, 300)


@pytest_asyncio.fixture
async def run(tmp_path, monkeypatch):
    """Makes runs: `run("steady", workers="2")`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    runs = []

    def make(plan, **flags):
        monkeypatch.setenv("LAYERWIRE_TEST_CHILD", plan)
        runs.append(Run(tmp_path, {"lame_duck_seconds": "0", "grace_seconds": "10", **flags}))
        return runs[-1]

    yield make
    for one in runs:
        one.stop.set()
        one.stop_now.set()
        with contextlib.suppress(CrashLoopError):
            await one.finished()


def environment(pid):
    return Path(f"/proc/{pid}/environ").read_text(encoding="utf-8").split("\0")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (None, "-event_engine_listener"),
        ("-event_engine_client", "-event_engine_listener,-event_engine_client"),
        ("event_engine_listener", "-event_engine_listener,event_engine_listener"),  # the last that is named counts
    ],
)
async def test_a_setting_of_grpc_for_clients_leaves_the_gateways_own(run, monkeypatch, theirs, expected):
    if theirs is None:
        monkeypatch.delenv("GRPC_EXPERIMENTS", raising=False)
    else:
        monkeypatch.setenv("GRPC_EXPERIMENTS", theirs)
    process = await run("steady").supervisor.next("gateway")
    assert f"GRPC_EXPERIMENTS={expected}" in environment(process.pid)


async def test_all_are_started_told_ready_and_drained(run):
    one = run("steady", workers="2", gateways="2")
    await asyncio.wait_for(one.ready.wait(), 20)
    pids = [post.process.pid for post in (*one.supervisor.workers, *one.supervisor.gateways)]
    assert len(set(pids)) == 4
    assert one.supervisor.workers[1].process.info == {"torch_version": "9.9"}
    one.stop.set()
    assert await one.finished()
    assert not any(alive(pid) for pid in pids)


async def test_a_child_that_dies_is_replaced_and_counted(run):
    one = run("steady")
    for deaths in range(3):
        worker = await one.supervisor.next("worker")
        await one.supervisor.refresh()
        assert one.supervisor.snapshots.totals()["layerwire_calls_total"][CALLS] == 5 * (deaths + 1)
        os.kill(worker.pid, signal.SIGKILL)
    await one.supervisor.next("worker")
    assert one.supervisor.metrics.counter("layerwire_worker_restarts_total", worker="0").value == 3
    assert one.supervisor.metrics.counter("layerwire_gateway_restarts_total", gateway="0").value == 0
    assert one.supervisor.metrics.gauge("layerwire_worker_up", worker="0", device="cpu").value == 1


async def test_a_child_that_never_gets_ready_ends_the_server(run, monkeypatch):
    monkeypatch.setattr("layerwire_server.supervisor.supervisor._LAST_DELAY_SECONDS", 0.01)
    one = run("fails")
    with pytest.raises(CrashLoopError, match=rf"-0 ended {MAX_FAILED_STARTS} times in a row before it was ready"):
        await one.finished()
    assert not one.ready.is_set()


async def test_an_error_of_a_child_ends_it(run, monkeypatch):
    monkeypatch.setattr("layerwire_server.supervisor.supervisor._LAST_DELAY_SECONDS", 0.01)
    one = run("broken")
    with pytest.raises(CrashLoopError):
        await one.finished()


async def test_a_child_that_hangs_is_killed_and_replaced(run, monkeypatch):
    one = run("hangs", hang_seconds="1")
    first = await one.supervisor.next("worker")
    monkeypatch.setenv("LAYERWIRE_TEST_CHILD", "steady")
    second = await one.supervisor.next("worker")
    assert await first.wait() == -signal.SIGKILL
    assert alive(second.pid)


async def test_a_worker_that_gateways_distrust_is_replaced_once(run):
    one = run("steady")
    first = await one.supervisor.next("worker")
    one.supervisor.replace_worker(0, "one gateway says so")
    one.supervisor.replace_worker(0, "another says so too")
    await first.wait()
    second = await asyncio.wait_for(one.supervisor.started["worker"].get(), 20)
    one.supervisor.replace_worker(0, "a late word about the first")
    await asyncio.wait_for(second.ready.wait(), 20)
    assert alive(second.pid)


async def test_a_child_that_does_not_stop_is_killed(run, monkeypatch):
    monkeypatch.setattr("layerwire_server.supervisor.supervisor._STOP_ROOM_SECONDS", 0.5)
    one = run("deaf", grace_seconds="0")
    await asyncio.wait_for(one.ready.wait(), 20)
    pids = [post.process.pid for post in (*one.supervisor.workers, *one.supervisor.gateways)]
    one.stop.set()
    await one.finished()
    assert not any(alive(pid) for pid in pids)


async def test_a_second_signal_ends_all_at_once(run):
    one = run("deaf")
    await asyncio.wait_for(one.ready.wait(), 20)
    pids = [post.process.pid for post in (*one.supervisor.workers, *one.supervisor.gateways)]
    one.stop.set()
    one.stop_now.set()
    assert not await one.finished()
    assert not any(alive(pid) for pid in pids)


async def test_stopping_before_anything_is_ready(run):
    one = run("steady")
    await asyncio.wait_for(one.supervisor.started["worker"].get(), 20)
    one.stop.set()
    assert await one.finished()


async def test_a_child_that_starts_is_asked_to_stop(run, monkeypatch, tmp_path):
    monkeypatch.setattr("layerwire_server.supervisor.supervisor._START_GRACE_SECONDS", 20.0)
    one = run("slow", store=str(tmp_path))
    await asyncio.wait_for(one.supervisor.started["worker"].get(), 20)
    one.stop.set()
    assert await one.finished()
    assert {path.name for path in tmp_path.iterdir()} >= {"worker-stopped", "gateway-stopped"}


def test_back_off_doubles_to_a_limit_and_forgets_after_a_steady_time():
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert backoff.after(31.0) == 0.1
    assert backoff.after(None) == 0.2


def test_failed_starts_count_in_a_row_only():
    backoff = Backoff()
    for _ in range(MAX_FAILED_STARTS - 1):
        backoff.after(None)
    assert backoff.failed_starts == MAX_FAILED_STARTS - 1
    backoff.after(0.5)
    assert backoff.failed_starts == 0


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGSEGV, "fault"),
        (signal.SIGABRT, "fault"),
        (signal.SIGFPE, "fault"),
        (signal.SIGKILL, "outside"),
        (signal.SIGUSR1, "outside"),
        (None, "hang"),
    ],
)
async def test_gateways_are_told_what_a_worker_died_of(run, tmp_path, number, cause):
    one = run("steady", workers="2")
    await asyncio.wait_for(one.ready.wait(), 20)
    keeper = one.supervisor.workers[1]
    if number is None:
        one.supervisor.replace_worker(1, "a test says so")
    else:
        os.kill(keeper.process.pid, number)
    async with asyncio.timeout(60):
        while not list(tmp_path.glob("death-of-*")):
            await asyncio.sleep(0.01)
    assert [path.name for path in tmp_path.glob("death-of-*")] == [f"death-of-1-by-{cause}"]


def test_a_process_that_the_kernel_had_no_memory_for_is_told_from_one_that_somebody_killed(monkeypatch):
    kills = iter([3, 3, 3, 4])
    monkeypatch.setattr(process, "_memory_kills", lambda: next(kills))
    one, other = (process.Process(process.ChildSpec("worker", 0), None, None) for _ in range(2))
    assert (one.death_cause(-signal.SIGKILL), other.death_cause(-signal.SIGKILL)) == ("outside", "memory")
    assert (one.death_cause(0), one.death_cause(1)) == ("exit", "exit")


def test_the_kernel_counts_whom_it_killed_for_want_of_memory():
    assert process._memory_kills() >= 0
    assert "oom_kill " in Path("/proc/vmstat").read_text()
