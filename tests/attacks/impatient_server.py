"""`layerwire serve` with impatient gateways: `python -m tests.attacks.impatient_server FLAGS`."""

from __future__ import annotations

from layerwire_server.supervisor import supervisor
from layerwire_server.supervisor.command import serve

if __name__ == "__main__":
    supervisor.MODULES["gateway"] = "tests.attacks.impatient_gateway"
    serve()
