"""When the calls of an open loop are due, as seconds from its start.

Pure: no clock is read. Each of several client processes has its own share; together they are the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import numpy as np

_BLOCK = 1024


def constant(rate: float, process: int, processes: int) -> Iterator[float]:
    """One every 1/rate seconds, of which the processes take turns."""
    for turn in count(process, processes):
        yield turn / rate


def poisson(rate: float, process: int, processes: int, seed: int) -> Iterator[float]:
    """Independent of each other, as calls of many clients are; processes of a share of the rate add up to the rate."""
    generator = np.random.default_rng((seed, process))
    due = 0.0
    while True:
        for gap in generator.exponential(processes / rate, _BLOCK).tolist():
            due += gap
            yield due
