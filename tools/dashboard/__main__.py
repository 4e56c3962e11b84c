"""Draws docs/dashboard.png: the dashboard over two minutes of a real server's life. `python -m tools.dashboard`.

It knows the story; how panels are drawn is picture.py's affair. Needs Debian's package prometheus.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.chaos.conftest import FaultyServer
from tests.monitoring import deploy_files
from tests.monitoring.callers import callers
from tests.monitoring.prometheus import Pace, Prometheus, start_prometheus

from tools.dashboard.picture import Lines, draw

PICTURE = Path(__file__).parents[2] / "docs/dashboard.png"
PACE = Pace(scrape="1s", window="12s", patience="4s")
RATE_INTERVAL = "5s"
SERVER = {"workers": 2, "threads": 1, "max-queue-calls": 250, "canary-interval-seconds": 0.5}
EVERYDAY = {"relu": 2, "linear": 2, "max_pool2d": 2, "conv2d": 2, "unary": 1, "wrong": 1}

LEAD_IN_SECONDS = 10.0  # until rates have their first values
CLIENTS = 3  # those of a chapter come from so many, for each client bounds what it sends
# Seconds, what is said of it, callers beside the everyday ones, and whether a worker is killed at its start.
STORY: list[tuple[float, str, dict[str, int], bool]] = [
    (30, "everyday calls, some with wrong arguments", {}, False),
    (30, "more callers", {"relu": 1, "linear": 1, "max_pool2d": 1, "conv2d": 1}, False),
    (25, "a worker is killed", {}, True),
    (20, "everyday calls", {}, False),
    (25, "more calls than there is room for, and some that the device fails", {"burst": 2, "failing": 2}, False),
]


@contextmanager
def server_and_prometheus(directory: Path) -> Iterator[tuple[FaultyServer, Prometheus]]:
    """A server and its Prometheus, once both serve."""
    server = FaultyServer(directory, *(f"--{name}={value}" for name, value in SERVER.items()))
    try:
        with start_prometheus(directory, server.metrics_address, PACE) as prometheus:
            while not prometheus.query(f"instance:layerwire_worker_serving:sum == {SERVER['workers']}"):
                time.sleep(0.2)
            yield server, prometheus
    finally:
        server.close()


def play(server: FaultyServer) -> list[float]:
    """Plays the story; returns when its chapters began, and when it ended."""
    moments = []
    with callers(server.address, pause_seconds=0.02, **EVERYDAY):
        time.sleep(LEAD_IN_SECONDS)
        for seconds, what, more, kills in STORY:
            print(f"{seconds:3} s  {what}", flush=True)
            moments.append(time.time())
            with ExitStack() as chapter:
                for _ in range(CLIENTS if more else 0):
                    chapter.enter_context(callers(server.address, pause_seconds=0.02, **more))
                if kills:
                    os.kill(server.pids("worker")[0], signal.SIGKILL)
                time.sleep(seconds)
                end = time.time()
    return [*moments, end]


def lines(prometheus: Prometheus, start: float, end: float) -> dict[int, Lines]:
    """What every panel shows of that time, by the panel's id."""
    panels: dict[int, Lines] = {}
    for panel in deploy_files.dashboard()["panels"]:
        series_by_legend = panels[panel["id"]] = {}
        for query in (query for query in deploy_files.queries() if query.panel == panel["title"]):
            for series in prometheus.query_range(query.filled_in(RATE_INTERVAL), start, end, 1):
                points = [(moment - start, value) for moment, value in series.points]
                series_by_legend[deploy_files.legend(query.legend, series.labels)] = points
    return panels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=PICTURE)
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as directory, server_and_prometheus(Path(directory)) as (server, prometheus):
        moments = play(server)
        data = lines(prometheus, moments[0], moments[-1])
    starts = [moment - moments[0] for moment in moments]
    story = ", ".join(f"{start:.0f} s: {what}" for start, (_, what, *_) in zip(starts, STORY, strict=False))
    paces = f"The rules' five minutes are {PACE.window} here, and alerts wait {PACE.patience}."
    draw(deploy_files.dashboard(), data, starts, f"From {story}.\n{paces}", output)
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
