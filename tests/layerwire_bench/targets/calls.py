"""Calls of a target, and how each ended."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from layerwire.calls import Request
from layerwire_bench.targets.target import Target
from layerwire_bench.workload import Entry, Sample

PATIENCE_SECONDS = 20.0
ENTRY = Entry("entry", "entry", 1.0)


class Ended(NamedTuple):
    """What the callback was told."""

    answer: Any
    status: str
    message: str


def sample(request: Request) -> Sample:
    return Sample(0, request, None, 0.0, 0.0)


class Calls:
    """Calls that a test makes; each must end once, and not before `fire` has returned."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._firing = False
        self._changed = asyncio.Event()
        self.ends: list[list[Ended]] = []
        self.order: list[int] = []

    def fire(self, prepared: Any, times: int = 1) -> None:
        for _ in range(times):
            ends: list[Ended] = []
            number = len(self.ends)
            self.ends.append(ends)

            def done(*told: Any, ends: list[Ended] = ends, number: int = number) -> None:
                assert not self._firing
                ends.append(Ended(*told))
                self.order.append(number)
                self._changed.set()

            self._firing = True
            self._target.fire(prepared, done)
            self._firing = False

    async def all(self) -> list[Ended]:
        """How each ended, once all have."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not all(self.ends):
                self._changed.clear()
                await self._changed.wait()
        await asyncio.sleep(0)
        return self.now()

    def now(self) -> list[Ended]:
        """How each ended, all having done so already."""
        assert {len(ends) for ends in self.ends} == {1}
        return [ends[0] for ends in self.ends]
