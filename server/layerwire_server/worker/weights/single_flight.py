"""Concurrent work with the same key, done once for all who wait for it.

It knows tasks; nothing of what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable


class SingleFlight:
    """Work in flight, by key."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    async def do(self, key: Hashable, work: Callable[[], Awaitable[None]]) -> None:
        """Returns when the work of this key is done, begun now or in flight; raises what it raises."""
        task = self._tasks.get(key)
        if task is None:

            async def run() -> None:
                try:
                    await work()
                finally:
                    del self._tasks[key]

            task = self._tasks[key] = asyncio.create_task(run())
        await asyncio.shield(task)  # who gives up doesn't take it from the others
