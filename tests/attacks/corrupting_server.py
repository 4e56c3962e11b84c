"""`layerwire serve` with corrupting workers: `python -m tests.attacks.corrupting_server FLAGS`."""

from __future__ import annotations

from layerwire_server.supervisor import supervisor
from layerwire_server.supervisor.command import serve

if __name__ == "__main__":
    supervisor.MODULES["worker"] = "tests.attacks.corrupting_worker"
    serve()
