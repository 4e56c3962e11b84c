"""The gateway with its patience for clients that read nothing cut from a minute to half a second."""

from __future__ import annotations

from layerwire_server.child import child
from layerwire_server.gateway import __main__ as gateway
from layerwire_server.gateway import service, stream

if __name__ == "__main__":
    stream._STALL_SECONDS = 0.5
    service._STALL_CHECK_SECONDS = 0.1
    child.main(gateway.run)
