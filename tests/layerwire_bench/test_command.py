"""`layerwire bench` as a user has it: a process, its exit status, and the files it leaves."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import pty
import re
import shlex
import subprocess

import numpy as np
import pytest

import layerwire
from layerwire_bench.report import files
from tests.layerwire_bench.commands import BENCH, RELU, UNCHECKED, bench, bench_process, measured
from tests.readme_tables import README


def test_a_sweep_leaves_its_files(served, tmp_path):
    paths = {form: tmp_path / f"found.{form}" for form in ("json", "csv", "html")}
    words = [word for form, path in paths.items() for word in (f"--{form}", path)]
    ended = bench_process(
        served.address, "max_pool2d", "--shape", "1,3,32,32", "--kernel-size", 2, "--concurrency", "1,4",
        "--metrics", served.metrics_address, "--verify", "all", *words,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "calls/s" in ended.stdout
    run = files.from_json(paths["json"].read_text())
    assert [point.load.callers for point in run.points] == [1, 4]
    assert run.workload == ("max_pool2d (1,3,32,32) float32, kernel_size=2",)
    for point in run.points:
        assert point.calls > 0
        assert (point.errors, point.wrong, point.unfinished) == ({}, 0, 0)
        assert point.verified >= point.calls
        assert point.latency.p50_seconds <= point.latency.p99_seconds <= point.latency.maximum_seconds
        assert sum(window.measured for window in point.windows) == 3
        assert point.server is not None
        assert point.server.kernel.mean_seconds > 0
        assert point.client.cpu_seconds > 0
    assert {"worker-0", "gateway-0"} <= run.points[0].server.cpu_seconds.keys()
    assert len(list(csv.reader(io.StringIO(paths["csv"].read_text())))) == 3
    assert "<svg" in paths["html"].read_text()


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_an_open_loop_keeps_its_rate(served, arrivals):
    pace = ["--window", "1s", "--duration", "2s"]
    words = [*RELU, "--rate", 200, "--arrivals", arrivals, *pace, "--json", "-"]
    [point] = measured(bench(served.address, *words, quick=False)).points
    assert point.load.mode == arrivals
    # Of Poisson arrivals in 2 s the count is 400 with a deviation of 20; the client may have had to wait for its turn.
    assert 0.75 * 400 <= point.calls <= 1.25 * 400
    assert point.client.send_lag_p99_seconds is not None


def test_every_way_to_call_can_be_compared(served):
    for other in ("unary", "oip", "local"):
        words = ["--concurrency", 4, "--compare", "stream", other, "--rounds", 2, "--duration", "200ms"]
        run = measured(bench(served.address, "run", "linear", *words, "--verify", "all", "--json", "-"))
        assert run.kind == "comparison"
        [ratio] = run.ratios
        assert (ratio.rounds, ratio.baseline) == (2, f"stream@{served.address}")
        assert [point.round for point in run.points] == [1, 1, 2, 2]
        assert all(point.verified and not point.wrong and not point.errors for point in run.points)
        assert "torch" in run.verify


def test_several_client_processes_share_the_load(served):
    [closed] = measured(
        bench(served.address, *RELU, *UNCHECKED, "--concurrency", 5, "--processes", 2, "--json", "-")
    ).points
    [opened] = measured(bench(served.address, *RELU, *UNCHECKED, "--rate", 300, "--processes", 3, "--json", "-")).points
    assert (closed.client.processes, opened.client.processes) == (2, 3)
    assert closed.calls
    assert 0 < opened.throughput < 600


def test_a_search_ends_between_two_rates(served):
    words = ["--slo", "30s", "--rate", "20:40", "--duration", "500ms"]
    run = measured(bench(served.address, *RELU, *words, "--json", "-"))
    assert run.kind == "search"
    assert run.search.best_rate == 40
    assert run.search.first_failed_rate is None
    assert [trial.rate for trial in run.search.trials] == [20, 30, 40]
    assert all(trial.kept for trial in run.search.trials)


def test_a_search_that_nothing_keeps_says_so(served):
    ended = bench(served.address, *RELU, *UNCHECKED, "--slo", "1us", "--rate", "50:100", "--duration", "500ms")
    assert ended.returncode == 1
    assert "no rate kept 0.001 ms" in ended.stderr


def test_a_mix_puts_its_weights_and_parts_its_figures(served, tmp_path):
    mix = tmp_path / "mix.toml"
    mix.write_text(
        '[[call]]\nfunction = "relu"\nshape = [1, 10]\nshare = 3\n[[call]]\nfunction = "linear"\nshape = [1, 6]\n'
        'weight = "name:bench.command.w"\n[weights]\n"bench.command.w" = [4, 6]\n'
    )
    run = measured(bench(served.address, "mix", mix, "--concurrency", 4, "--verify", "all", "--json", "-"))
    [point] = run.points
    assert [part.name for part in point.parts] == ["relu (1,10)", "linear (1,6)"]
    first, second = (part.calls for part in point.parts)
    assert 2 < first / second < 4.5
    assert not point.errors


def test_torch_alone_is_measured_too():
    [point] = measured(bench("local", *RELU, "--concurrency", 1, "--json", "-")).points
    assert point.target == "local"
    assert point.calls > 100
    assert point.client.bottleneck is None


USAGE = {
    "no address": (["relu", "--shape", "1"], "ADDRESS is missing"),
    "nothing to send": (["127.0.0.1:1"], "what shall be sent"),
    "a misspelt function": (["127.0.0.1:1", "reul", "--shape", "1"], "did you mean relu"),
    "no shape": (["127.0.0.1:1", "relu", "--concurrency", "1"], "--shape"),
    "a bad load": (["127.0.0.1:1", *RELU, "--concurrency", "x"], "no number"),
    "a bad time": (["127.0.0.1:1", *RELU, "--slo", "soon"], "must be a time"),
    "a bad address": (["nonsense", *RELU], "nonsense"),
    "no such file": (["127.0.0.1:1", "mix", "nowhere.toml"], "nowhere.toml"),
    "a file in no directory": (["127.0.0.1:1", *RELU, "--html", "/no/such/page.html"], "there is no directory"),
}


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_a_sentence(name):
    words, told = USAGE[name]
    ended = bench(*words)
    assert ended.returncode == 2
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_torch_refuses_is_refused_before_anything_is_sent(served):
    ended = bench(served.address, "max_pool2d", "--shape", "1,3,4,4", "--kernel-size", 9)
    assert ended.returncode == 2
    assert "max_pool2d" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_options_may_stand_before_what_is_sent(served):
    [point] = measured(bench("--concurrency", 2, served.address, "--json", "-", *RELU, *UNCHECKED)).points
    assert point.load.callers == 2


def test_an_unknown_program_is_a_sentence(served):
    ended = bench(served.address, "run", "nowhere")
    assert ended.returncode == 2
    assert "nowhere" in ended.stderr
    assert "Traceback" not in ended.stderr


README_COMMANDS = re.findall(r"^layerwire bench (.*?)(?:\s+#.*)?$", README.read_text(), flags=re.MULTILINE)
STANDS_FOR = {
    "localhost:50051": None,  # the server
    "triton:8001": None,
    "digits": "linear",
    "resnet": "linear",
    "1000:9000:2000": "100:300:100",  # no test of speed
    "1:256:x4": "1:16:x4",
    "10ms": "30s",
}


def test_the_readme_shows_every_kind_of_load():
    shown = " ".join(README_COMMANDS)
    for word in ("--concurrency", "--rate", "--slo", "--compare", "--by oip", "--html", " run ", " mix ", "local "):
        assert word in shown


@pytest.mark.parametrize("command", README_COMMANDS)
def test_the_readmes_commands_work(served, command, tmp_path):
    with layerwire.Client(served.address) as client:
        client.put_weights("classifier.weight", np.ones((10, 3072), "float32"))
    words = [STANDS_FOR.get(word, word) or served.address for word in shlex.split(command)]
    if not {"--concurrency", "--rate", "--slo"} & set(words):
        words += ["--concurrency", "1,2"]
    if "--slo" in words:
        words += ["--rate", "20:40", "--duration", "200ms"]
    if "--compare" in words:
        words += ["--rounds", "2", "--duration", "200ms"]
    words = [str(tmp_path / word) if word.endswith(".html") else word for word in words]
    unchecked = [] if "--verify" in words else UNCHECKED
    ended = bench(*words, *unchecked)
    assert ended.returncode == 0, ended.stderr


def test_a_terminal_shows_how_it_goes(served):
    ours, theirs = pty.openpty()
    pace = ["--window", "300ms", "--warmup", "300ms", "--max-windows", "3"]
    words = [*BENCH, served.address, *RELU, *UNCHECKED, "--concurrency", "1,2", *pace]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "60"}
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = bytearray()
        with contextlib.suppress(OSError):  # what Linux ends a terminal with
            while part := os.read(ours, 4096):
                seen += part
    os.close(ours)
    assert process.returncode == 0
    text = seen.decode()
    assert "calls/s" in text
    assert "warming up" in text
    assert "2/2" in text
    assert "\x1b[" in text
