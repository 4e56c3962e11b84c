"""What a server counted: pages and statistics read before and after, and what is made of the difference."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from layerwire.calls import Requests
from layerwire.transport.settings import make_settings
from layerwire_bench.plan import TargetSpec
from layerwire_bench.servers import counters, page, readings
from layerwire_bench.servers.inference import ModelCounters
from layerwire_bench.servers.page import PageCounters, PageError
from layerwire_bench.targets.inference import InferenceTarget
from layerwire_bench.targets.stream import StreamTarget
from layerwire_bench.workload import Workload
from layerwire_server.metrics import Metrics
from layerwire_server.supervisor.exposition import LayerwireCollector, Snapshots
from tests.layerwire_bench.targets.calls import ENTRY, Calls, sample
from tests.layerwire_bench.targets.foreign import Foreign
from tests.through_server.inference import programs

X = np.ones((2, programs.FEATURES), np.float32)
RELU, RUN = Requests().relu(X), Requests().run("linear", {"x": X}, version=1)


def workload(*requests):
    return Workload((ENTRY,), tuple(sample(request) for request in requests), "")


class Counted:
    """A server's own page, and what it counts."""

    def __init__(self):
        self.start_anew()

    def start_anew(self):
        self.metrics = Metrics()
        self.metrics.gauge("layerwire_build_info", version="1", torch_version="2", python_version="3").set(1)
        self.metrics.gauge("layerwire_queue_calls", worker="0").set(7)

    def batches(self, operator, batches, calls, rows, kernel_seconds, queue_seconds):
        """So many batches of so many calls."""
        values = {"copy_in": 2e-5, "kernel": kernel_seconds, "copy_out": 3e-5}
        for name, seconds in values.items():
            self.metrics.histogram(f"layerwire_{name}_seconds", operator=operator).observe(seconds, batches)
        self.metrics.histogram("layerwire_batch_calls", operator=operator).observe(calls, batches)
        self.metrics.histogram("layerwire_batch_rows", operator=operator).observe(rows, batches)
        self.metrics.histogram("layerwire_queue_seconds", operator=operator).observe(queue_seconds, batches * calls)
        self.metrics.counter("layerwire_calls_total", operator=operator, code="OK").add(batches * calls)
        self.metrics.counter("layerwire_batch_closed_total", reason="drained").add(batches)

    def page(self):
        snapshots = Snapshots()
        snapshots.update("worker-0", self.metrics.snapshot())
        registry = CollectorRegistry(auto_describe=False)
        registry.register(LayerwireCollector(snapshots, lambda: None))
        return generate_latest(registry)


@pytest.fixture
def counted(monkeypatch):
    """A server's counters, on a port of their own: `counted.address`."""
    monkeypatch.setattr(page, "_COMPARABLE_SECONDS", 0.0)
    found = Counted()
    found.text = None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            text = found.page() if found.text is None else found.text
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    found.address = f"127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def grown(counted, change, calls, operators=("relu", "linear")):
    """What is made of a change."""
    counts = PageCounters(counted.address, operators)
    first = counts.mark()
    change()
    return counts.between(first, counts.mark(), calls)


def test_a_stretch_counts_alone(counted):
    counted.batches("relu", 50, 4, 4, 1.0, 1.0)  # before
    found = grown(counted, lambda: counted.batches("relu", 100, 8, 16, 1.5e-4, 1.5e-5), 800)
    assert (found.calls, found.batch_calls, found.batch_rows) == (800, 8, 16)
    assert found.batch_closed == {"drained": 100}
    assert found.rejected == {}
    assert found.note is None
    assert found.source == f"/metrics of {counted.address}"
    assert found.kernel.mean_seconds == pytest.approx(1.5e-4)
    assert found.kernel.p50_seconds == pytest.approx(1.5e-4)  # the middle of 100 to 200 us
    assert found.queue.mean_seconds == pytest.approx(1.5e-5)
    assert found.queue.p99_seconds == pytest.approx(1.99e-5)
    assert found.copy_in.mean_seconds == pytest.approx(2e-5)
    assert found.copy_out.mean_seconds == pytest.approx(3e-5)


def test_phases_of_a_mix_are_those_of_its_calls(counted):
    def change():
        counted.batches("relu", 10, 90, 90, 1e-3, 1e-3)
        counted.batches("linear", 100, 1, 1, 1e-1, 1e-3)
        counted.batches("conv2d", 100, 1, 1, 50.0, 50.0)  # another's

    found = grown(counted, change, 1000)
    assert found.calls == 1100
    assert found.kernel.mean_seconds == pytest.approx((900 * 1e-3 + 100 * 1e-1) / 1000)
    assert found.kernel.p50_seconds < 2e-3  # by calls, of which most are relu's, not by batches
    assert found.queue.mean_seconds == pytest.approx(1e-3)
    assert found.batch_calls == pytest.approx(1000 / 110)


def test_processor_time_and_rejections_are_told_by_name(counted):
    def change():
        for process, seconds in (("gateway-0", 1.5), ("worker-0", 2.5), ("supervisor", 0.0)):
            counted.metrics.counter("layerwire_process_cpu_seconds_total", process=process).add(seconds)
        counted.metrics.counter("layerwire_rejected_total", reason="queue_calls").add(3)

    found = grown(counted, change, 0)
    assert found.cpu_seconds == {"gateway-0": 1.5, "worker-0": 2.5}
    assert found.total_cpu_seconds == 4.0
    assert found.rejected == {"queue_calls": 3}
    assert (found.calls, found.queue, found.kernel, found.batch_rows, found.note) == (0, None, None, None, None)


NOTES = {
    "as many": (1000, 1000, None),
    "a few on their way": (1000, 1090, None),
    "others too": (2100, 1000, "others called at the same time: the server answered 2.1 times our calls"),
    "only others": (500, 0, "others called at the same time: the server answered 500 calls, none of them ours"),
    "not all": (500, 1000, "the server counted 500 calls, and we had 1,000 answers: not all came from it"),
    "another server": (
        10,
        1000,
        "the server of this page answered 10 calls, and we had 1,000 answers: it is another one",
    ),
    "too few to tell": (0, 90, None),
}


@pytest.mark.parametrize(("counts", "calls", "note"), NOTES.values(), ids=NOTES)
def test_what_does_not_fit_is_noted(counts, calls, note, counted):
    found = grown(counted, lambda: counted.batches("relu", counts, 1, 1, 1e-3, 1e-3), calls)
    assert found.note == note
    assert (found.kernel is None) == (counts == 0 or (note or "").endswith("another one"))


def test_a_server_started_anew_counts_from_zero(counted):
    counted.batches("relu", 500, 1, 1, 1e-3, 1e-3)

    def change():
        counted.start_anew()
        counted.batches("relu", 300, 1, 1, 1e-3, 1e-3)

    found = grown(counted, change, 400)
    assert found.calls == 300
    assert found.note == "the server was started anew meanwhile, and what it had counted before is missing"


def test_a_gauge_may_sink(counted):
    found = grown(counted, lambda: counted.metrics.gauge("layerwire_queue_calls", worker="0").set(2), 0)
    assert found.note is None


def test_a_moment_is_too_short_to_compare_counts(counted, monkeypatch):
    monkeypatch.setattr(page, "_COMPARABLE_SECONDS", 60.0)
    found = grown(counted, lambda: counted.batches("relu", 10, 1, 1, 1e-3, 1e-3), 1000)
    assert found.note is None
    assert found.kernel is not None


def test_replaced_workers_are_noted(counted):
    restarts = counted.metrics.counter("layerwire_worker_restarts_total", worker="0")
    assert grown(counted, lambda: restarts.add(1), 0).note == "1 worker was replaced meanwhile"
    assert grown(counted, lambda: restarts.add(2), 0).note == "2 workers were replaced meanwhile"


def test_a_reading_that_fails_leaves_a_gap(counted):
    counts = PageCounters(counted.address, ["relu"])
    first = counts.mark()
    counted.text = b"no page\n"
    second = counts.mark()
    counted.text = None
    third = counts.mark()
    assert counts.between(first, second, 0) is None
    assert counts.between(first, third, 0) is not None
    counted.text = b'layerwire_build_info{version="1"} 1\nlayerwire_calls_total{operator="relu} 1\n'
    assert counts.between(third, counts.mark(), 0) is None


def test_readings_of_long_ago_are_forgotten(counted, monkeypatch):
    monkeypatch.setattr(readings, "MAX_READINGS", 2)
    counts = PageCounters(counted.address, ["relu"])
    marks = [counts.mark() for _ in range(3)]
    assert counts.between(marks[0], marks[2], 0) is None
    assert counts.between(marks[1], marks[2], 0) is not None


def test_what_is_no_page_is_told(counted):
    with pytest.raises(PageError, match='must be "host:port", got "nowhere"'):
        page.read("nowhere")
    counted.text = b"go_goroutines 3\n"
    with pytest.raises(PageError, match="has no /metrics of a Layerwire server"):
        page.read(counted.address)


def test_nobody_there_is_told():
    with pytest.raises(PageError, match="/metrics of 127.0.0.1:1 can't be read: .*refused"):
        page.read("127.0.0.1:1")


HOSTS = {
    "localhost:50051": "localhost",
    "[::1]:50051": "[::1]",
    "dns:///example:1": "example",
    "dns:example:1": "example",
    "ipv4:10.0.0.1:1": "10.0.0.1",
    "unix:/run/socket": None,
}


@pytest.mark.parametrize(("address", "host"), HOSTS.items(), ids=HOSTS)
def test_the_page_is_looked_for_on_the_targets_host(address, host, monkeypatch):
    asked = []

    def read(address_of_page):
        asked.append(address_of_page)
        return ""

    monkeypatch.setattr(counters, "read", read)
    found, why = counters.find(TargetSpec("stream", address), None, workload(RELU))
    assert asked == ([] if host is None else [f"{host}:9464"])
    assert (found is None) == (host is None)
    assert why == (None if host else f"stream@{address}: no /metrics found; --metrics HOST:PORT says where it is")


def test_a_page_that_is_not_there_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setattr(counters, "PORT", 1)
    found, why = counters.find(TargetSpec("unary", "127.0.0.1:2"), None, workload(RELU))
    assert found is None
    assert why.startswith("/metrics of 127.0.0.1:1 can't be read: ")
    assert why.endswith("; --metrics HOST:PORT says where else")
    given = counters.find(TargetSpec("unary", "127.0.0.1:2"), "127.0.0.1:3", workload(RELU))
    assert given[1].startswith("/metrics of 127.0.0.1:3 can't be read: ")
    assert counters.find(TargetSpec("local"), None, workload(RELU)) == (
        None,
        "local: torch in this process counts nothing",
    )


async def calls_of(opened, times, *requests):
    calls = Calls(opened)
    for request in requests:
        calls.fire(opened.prepare(sample(request), ENTRY), times)
    assert {ended.status for ended in await calls.all()} == {"OK"}


async def test_a_real_page_tells_of_real_calls(served):
    counts, why = counters.find(TargetSpec("stream", served.address), served.metrics_address, workload(RELU, RUN))
    assert why is None
    settings = make_settings(served.address, None, None, None)
    async with StreamTarget(settings, 30.0) as opened:
        await calls_of(opened, 5, RELU, RUN)
        first = counts.mark()
        await calls_of(opened, 60, RELU, RUN)
        last = counts.mark()
    found = counts.between(first, last, 120)
    assert found.calls == 120
    assert found.note is None
    for phase in (found.queue, found.copy_in, found.kernel, found.copy_out):
        assert 0 < phase.p50_seconds <= phase.p99_seconds
        assert phase.mean_seconds > 0
    assert found.batch_rows >= found.batch_calls >= 1
    assert sum(found.batch_closed.values()) == pytest.approx(120 / found.batch_calls)
    assert found.cpu_seconds["worker-0"] > 0


async def test_programs_and_operators_stand_under_names_of_their_own(served):
    both = [
        counters.find(TargetSpec("stream", served.address), served.metrics_address, workload(request))[0]
        for request in (RELU, RUN)
    ]
    firsts = [counts.mark() for counts in both]
    async with StreamTarget(make_settings(served.address, None, None, None), 30.0) as opened:
        await calls_of(opened, 10, RELU)
        middles = [counts.mark() for counts in both]
        await calls_of(opened, 10, RUN)
    lasts = [counts.mark() for counts in both]
    of_relu, of_run = (counts.between(*marks, 10) for counts, *marks in zip(both, firsts, middles, strict=True))
    assert (of_relu.kernel is None, of_run.kernel is None) == (False, True)
    of_relu, of_run = (counts.between(*marks, 10) for counts, *marks in zip(both, middles, lasts, strict=True))
    assert (of_relu.kernel is None, of_run.kernel is None) == (True, False)


async def test_real_statistics_tell_of_real_calls(served, monkeypatch):
    monkeypatch.setattr(counters, "PORT", 1)
    spec = TargetSpec("oip", served.address)
    counts, why = counters.find(spec, None, workload(RUN))
    assert why is None
    async with InferenceTarget(make_settings(served.address, None, None, None), 30.0) as opened:
        first = counts.mark()
        await calls_of(opened, 40, RUN)
        last = counts.mark()
    found = counts.between(first, last, 40)
    assert found.source == f"ModelStatistics of linear at {served.address}"
    assert (found.calls, found.note) == (40, None)
    assert found.batch_rows == pytest.approx(2 * found.batch_calls)
    for phase in (found.queue, found.copy_in, found.kernel, found.copy_out):
        assert phase.mean_seconds > 0
        assert phase.p50_seconds is None
    crowded = ModelCounters(served.address, [("linear", "1")])
    before = crowded.mark()
    async with InferenceTarget(make_settings(served.address, None, None, None), 30.0) as opened:
        await calls_of(opened, 120, RUN)
    assert "others called at the same time" in crowded.between(before, crowded.mark(), 10).note
    assert counters.find(spec, None, workload(RELU))[0] is not None  # the target will refuse it, in words for people
    absent = counters.find(spec, None, workload(Requests().run("absent", {"x": X})))
    assert absent[0] is None
    assert "ModelStatistics: " in absent[1]


async def test_statistics_of_a_server_that_goes_leave_a_gap():
    async with Foreign() as server:
        address = server.address
    counts = ModelCounters(address, [("m", "")])
    assert counts.between(counts.mark(), counts.mark(), 0) is None
