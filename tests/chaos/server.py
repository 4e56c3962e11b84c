"""`layerwire serve` with faulty workers: `python -m tests.chaos.server FLAGS`."""

from __future__ import annotations

from layerwire_server.supervisor import supervisor
from layerwire_server.supervisor.command import serve

if __name__ == "__main__":
    supervisor.MODULES["worker"] = "tests.chaos.faulty_worker"
    serve()
