"""What a target is: somewhere that calls go and answers come from.

It knows no protocol; the other files of this folder have one each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self, TypeAlias

from layerwire_bench.workload import Arrays, Entry, Sample

# Takes what became of a call: its answer, whatever the target makes of it, gRPC's status name, "OK" for success, and
# for anything else what was said.
Callback: TypeAlias = Callable[[Any, str, str], None]

CLOSED = "the load tester ended the connection"  # what is said of calls that were given up at the end


class Target(ABC):
    """Where calls go. Made and used on one event loop, in a client process.

    The hot path is `fire` and what it causes: as little as can be between the call's being due and its bytes leaving.
    """

    async def __aenter__(self) -> Self:
        """Connects as far as that can be done before the first call."""
        return self

    @abstractmethod
    async def __aexit__(self, *_: object) -> None:
        """Gives up what is in flight and ends the connection. Every callback has been called afterwards."""

    @abstractmethod
    def prepare(self, sample: Sample, entry: Entry) -> Any:
        """A call of the sample, made ready once so that firing it costs little.

        Raises:
            ValueError: the target can't do that, in words for the user.
        """

    @abstractmethod
    def fire(self, call: Any, callback: Callback) -> None:
        """Makes the call. `callback` is called once, on the loop, after `fire` has returned, whatever happens."""

    @abstractmethod
    def outputs(self, call: Any, answer: Any) -> Arrays:
        """The outputs of an answer whose status was OK, by name, as numpy arrays. Off the hot path.

        Raises:
            ValueError: the answer can't be read.
        """
