"""A worker that stands still, as one that is swapped out or debugged: others run its calls, and it comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import layerwire
from tests.chaos.conftest import Load
from tests.served import PATIENCE_SECONDS, Server


def test_calls_of_a_stopped_worker_go_to_the_other_and_it_works_again(start: Callable[..., Server]) -> None:
    flags = ("--workers", "2", "--threads", "1", "--canary-interval-seconds", "0.2", "--hang-seconds", "300")
    server = start(*flags)
    with layerwire.Client(server.address, timeout=PATIENCE_SECONDS) as lw:
        load = Load(lw)
        for pid in server.pids("worker"):
            load.after(100)
            os.kill(pid, signal.SIGSTOP)
            load.after(400)  # more than what is in flight: each caller has waited for its answer and gone on
            os.kill(pid, signal.SIGCONT)
            while not all(worker.healthy for worker in lw.server_info().workers):
                load.after(1)
        load.end()
    restarts, quarantined_calls = server.metrics(
        "layerwire_worker_restarts_total", "layerwire_quarantined_requests_total"
    )
    assert (restarts, quarantined_calls) == (0, 0)
