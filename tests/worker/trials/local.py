"""A tuner with an operator whose kernels a test gives, a store's directory, and a lane."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from layerwire_server.operators.activate import Relu
from layerwire_server.operators.operator import Merge
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.trials.choices import Choices
from layerwire_server.worker.trials.tuner import _HOT_BATCHES, Tuner

X = torch.ones(4, 3)


@dataclass(frozen=True)
class Tried(Relu):
    """relu, with kernels that a test gives."""

    ways: dict[str, Callable[..., tuple[torch.Tensor, ...]]] = field(default_factory=dict, compare=False, repr=False)
    exact: bool = True

    @property
    def kernels_are_exact(self):
        return self.exact

    def kernels(self):
        return self.ways

    def run(self, *tensors):
        return (torch.relu(tensors[0]),)


class Rig:
    """A tuner, a store's directory, and a lane whose batches take as long as a test says."""

    def __init__(self, directory, operator, mode="background", *, index=0, read_only=False, deterministic=False):
        self.choices = Choices(directory, "here", index, read_only=read_only)
        self.tuner = Tuner(mode, self.choices)
        self.key = LaneKey(operator, Merge.ROWS, 100, deterministic)
        self.threads = ThreadPoolExecutor(1)

    def __enter__(self):
        self.tuner.start(self.threads.submit)
        return self

    def __exit__(self, *_):
        self.tuner.close()
        self.threads.shutdown()

    def batch(self, tensor=X, seconds=1.0):
        """Runs a batch as devices do; the kernel that ran it."""
        site = self.tuner.site(self.key, [tensor])
        if site is None:
            return None
        name = site.name
        site.run([tensor])
        self.tuner.count(site, [tensor], seconds)
        return name

    def look(self):
        """As when the time is over for which a look at the store counts."""
        self.choices._look_time = -math.inf
        self.tuner.site(self.key, [X]).check_time = 0.0

    def hot(self, tensor=X):
        for _ in range(_HOT_BATCHES):
            self.batch(tensor)


def relu(tensor):
    return (torch.relu(tensor),)
