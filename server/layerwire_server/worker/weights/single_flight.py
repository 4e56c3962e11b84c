"""Work that several wait for, done once for all of them.

It knows tasks; nothing of what the work is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable


class Once:
    """Work under way, by key."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, asyncio.Task[None]] = {}

    async def do(self, key: Hashable, work: Callable[[], Awaitable[None]]) -> None:
        """Returns when the work of this key is done, begun now or under way; raises what it raises."""
        task = self._under_way.get(key)
        if task is None:

            async def run() -> None:
                try:
                    await work()
                finally:
                    del self._under_way[key]

            task = self._under_way[key] = asyncio.create_task(run())
        await asyncio.shield(task)  # who gives up doesn't take it from the others
