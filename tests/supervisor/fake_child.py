"""A child process without gRPC and torch, run by the supervisor's tests: `python -m tests.supervisor.fake_child FD`.

What it does says LAYERWIRE_TEST_CHILD: steady | fails | hangs | deaf | broken | slow.
"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from layerwire_server.child import child


async def run(this: child.Child) -> None:
    plan = os.environ["LAYERWIRE_TEST_CHILD"]
    if plan == "fails":
        os._exit(3)
    if plan == "broken":
        raise RuntimeError("told to")
    if plan == "slow":  # to start; its end is where a worker would take away its marks
        await this.stop_event.wait()
        (Path(this.settings.store) / f"{this.role}-stopped").touch()
        return
    this.on_worker_death = lambda worker, cause: (this.runtime_directory / f"death-of-{worker}-by-{cause}").touch()
    if this.role == "worker":
        counter = this.metrics.counter("layerwire_calls_total", operator="relu", code="OK")
        counter.add(5)
    this.ready({"torch_version": "9.9"})
    if plan == "hangs" and this.role == "worker":
        threading.Event().wait()  # the event loop stands still: no sign of life any more
    await this.stop_event.wait()
    if plan == "deaf":
        await asyncio.Event().wait()


if __name__ == "__main__":
    child.main(run)
