"""What can't be mapped: the error that lists every call of a module that no program can express.

It knows neither torch nor messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from layerwire.errors import InvalidArgumentError


class UnsupportedCall(NamedTuple):
    """A call within a module that has no counterpart among the operators.

    Attributes:
        path: of the submodule that makes it, such as "encoder.lstm"; "" for the module itself.
        call: torch's internal name, such as "aten.lstm.input"; "" where tracing ended before there was one.
        function: what was written, such as "lstm"; "" where unknown.
        reason: what is in the way, if more than that there is no such operator.
        source: where it is written, such as 'File "net.py", line 12, in forward'; "" where unknown.
    """

    path: str
    call: str
    function: str = ""
    reason: str = ""
    source: str = ""

    def __str__(self) -> str:
        name = self.call
        if self.function and self.function not in self.call:
            name = f"{name} ({self.function})"
        reason = f": {self.reason}" if self.reason else ""
        source = f" [{self.source}]" if self.source else ""
        return f"{self.path or 'the module itself'}: {name or 'forward'}{reason}{source}"


class UnsupportedModuleError(InvalidArgumentError):
    """The module makes calls that no program can express; `calls` has all of them."""

    def __init__(self, name: str, calls: Sequence[UnsupportedCall]) -> None:
        self.calls = tuple(calls)
        count = f"{len(calls)} calls are" if len(calls) > 1 else "a call is"
        lines = "".join(f"\n  {call}" for call in calls)
        super().__init__(f"deploy: module {name}: {count} not supported{lines}", operator="deploy", field="module")


class LoweringError(Exception):
    """Raised while one call is mapped: why it can't be."""
