"""What is sent: calls ready to be made, with the answers they should get.

It knows requests of the SDK and arrays; neither channels nor torch nor time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from layerwire.calls import Request
from layerwire.v1 import program_pb2

Arrays: TypeAlias = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Sample:
    """One call that is sent again and again.

    Attributes:
        entry: index of the entry of the workload that it is of.
        request: family, operator and tensors. Of a program: family "run".
        expected: what the answer should be, by output name ("output", "indices", or a program's outputs); None: what
            the first answer is.
        rtol, atol: how far an answer may be off, as numpy.allclose has them; both 0: not at all. Where
            `expected` is None, atol is that of an answer near 1.
        weights: what the server has and the request but names: weights by their names, a program's by its constants'.
            Only torch in this process needs them.
        program: what the request but names; None for an operator, or where it can't be had. Likewise.
    """

    entry: int
    request: Request
    expected: Arrays | None
    rtol: float
    atol: float
    weights: Arrays = field(default_factory=dict)
    program: program_pb2.Program | None = None


@dataclass(frozen=True)
class Terms:
    """How the calls of an entry are treated.

    Attributes:
        share: of all calls, above 0; the shares of a workload add up to 1.
        priority: -10 to 10.
        deterministic: whether answers must not depend on company.
    """

    share: float = 1.0
    priority: int = 0
    deterministic: bool = False

    def __str__(self) -> str:
        """What a description ends with."""
        priority = f", priority={self.priority}" if self.priority else ""
        return f"{priority}, deterministic=true" if self.deterministic else priority


@dataclass(frozen=True)
class Entry:
    """One kind of call.

    Attributes:
        name: short and unique within the workload: "max_pool2d (1,3,32,32)".
        description: a line that says all of it: "max_pool2d (1,3,32,32) float32, kernel_size=2".
        share, priority, deterministic: as of `Terms`.
    """

    name: str
    description: str
    share: float
    priority: int = 0
    deterministic: bool = False


@dataclass(frozen=True)
class Workload:
    """A mix of calls.

    Attributes:
        entries: kinds of calls.
        samples: of each kind several, with different data; each names its entry.
        reference: what expected answers were made with: "torch 2.13.0", "the first answer".
    """

    entries: tuple[Entry, ...]
    samples: tuple[Sample, ...]
    reference: str

    def for_servers(self) -> Workload:
        """The same without what only torch in this process needs, which may be large."""
        return replace(self, samples=tuple(replace(one, weights={}, program=None) for one in self.samples))
