"""perf_analyzer loads a server in each of its ways, and reads the server's own statistics of it.

It is `perf_analyzer` on the path, or what LAYERWIRE_PERF_ANALYZER names; fetch.sh gets it.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess

import pytest

from tests.served import Server

WINDOW_REQUESTS = 500
_COUNT = re.compile(r"(Inference|Execution|Successful request) count: (\d+)")


def tool() -> str:
    """The program, if there is one that runs here."""
    path = os.environ.get("LAYERWIRE_PERF_ANALYZER") or shutil.which("perf_analyzer")
    if path is None:
        return ""
    ran = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return path if ran.returncode == 0 else ""


PERF_ANALYZER = tool()
pytestmark = pytest.mark.skipif(
    not PERF_ANALYZER, reason="no perf_analyzer that runs here: see tests/through_server/perf_analyzer/fetch.sh"
)


@pytest.mark.parametrize(
    ("model", "rows", "flags"),
    [
        ("linear", 1, ["--concurrency-range", "8"]),
        ("linear", 4, ["--concurrency-range", "4", "-b", "4"]),
        ("linear", 1, ["--concurrency-range", "8", "--async"]),
        ("linear", 1, ["--concurrency-range", "16", "--async", "--streaming"]),
        ("linear", 1, ["--request-rate-range", "200"]),
        ("identity-bfloat16", 1, ["--concurrency-range", "2"]),
        ("pair", 1, ["--concurrency-range", "2"]),
        ("short", 1, ["--concurrency-range", "2"]),
    ],
    ids=["sync", "batch", "async", "stream", "rate", "bfloat16", "two inputs", "alone"],
)
def test_load(served: Server, tmp_path, model, rows, flags):
    table = tmp_path / "table.csv"
    command = [PERF_ANALYZER, "-m", model, "-i", "grpc", "-u", served.address, "-f", str(table), "-s", "90", "-r", "5"]
    command += ["--measurement-mode", "count_windows", "--measurement-request-count", str(WINDOW_REQUESTS), *flags]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    counts = {name: int(count) for name, count in _COUNT.findall(ran.stdout)}
    assert counts["Successful request"] >= WINDOW_REQUESTS
    assert counts["Inference"] == rows * counts["Successful request"]
    assert 1 <= counts["Execution"] <= counts["Successful request"]
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert float(row["Inferences/Second"]) > 0
    for column in ("Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output"):
        assert float(row[column]) > 0, column
