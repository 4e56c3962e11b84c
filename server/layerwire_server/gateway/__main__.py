"""The gateway as a process: `python -m layerwire_server.gateway FD`, started by the supervisor.

It knows when to start and when to stop, nothing else.
"""

from __future__ import annotations

import asyncio

from layerwire_server.child import child
from layerwire_server.gateway.service import Gateway


async def run(this: child.Child) -> None:
    """Serves until `stop_event` is set."""
    gateway = Gateway(this, alone=True)
    await gateway.start()
    keep = asyncio.create_task(gateway.keep())
    stop = asyncio.create_task(this.stop_event.wait())
    live = asyncio.create_task(gateway.live.wait())
    await asyncio.wait({keep, stop, live}, return_when=asyncio.FIRST_COMPLETED)
    if live.done():
        this.ready()
    await asyncio.wait({keep, stop}, return_when=asyncio.FIRST_COMPLETED)
    if keep.done():
        await keep  # raises what ended it
    await gateway.stop()
    for task in (keep, stop, live):
        task.cancel()


if __name__ == "__main__":
    child.main(run)
