"""The target without a server: torch in this process, the limit to compare with.

It knows that samples can be run; torch itself is the reference's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from layerwire_bench.targets.target import Callback, Target
from layerwire_bench.workload import Arrays, Entry, Sample


class LocalTarget(Target):
    """Calls run on the event loop, one after another, however many callers there are.

    So the latency of one caller is the time of the kernel alone; that of several holds the wait for those before, which
    are in the same queue as on any machine with one device. The loop adds 1 us a call with uvloop, 2 us without
    (measured). torch itself uses as many threads as it is allowed to.
    """

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # what was called is already on its way to its callback

    def prepare(self, sample: Sample, entry: Entry) -> Callable[[], Arrays]:
        from layerwire_bench.answers import reference

        return reference.local_call(sample)

    def fire(self, call: Callable[[], Arrays], callback: Callback) -> None:
        """Lets it run when the loop comes to it."""
        self._loop.call_soon(_run, call, callback)

    def outputs(self, call: Callable[[], Arrays], answer: Any) -> Arrays:
        outputs: Arrays = answer
        return outputs


def _run(call: Callable[[], Arrays], callback: Callback) -> None:
    try:
        answer = call()
    except Exception as error:  # whatever torch raises is this call's failure
        callback(None, "INTERNAL", f"{type(error).__name__}: {error}")
    else:
        callback(answer, "OK", "")
