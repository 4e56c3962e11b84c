"""A trial: runs an operator's kernels in turns on the same inputs, drops those that answer otherwise, times the rest.

It knows kernels and tensors; nothing of lanes, stores or when there is time for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch

from layerwire_server.operators.operator import EAGER, Kernel
from layerwire_server.worker.trials.samples import Inputs, variants

Step: TypeAlias = Callable[[Callable[[], Any]], Any]  # runs a piece of work where batches run

ONE_THREAD = "_one_thread"  # how names of kernels end that run on one thread

_MARGIN = 1.1  # what is less than a tenth faster isn't worth another way
_SHARED_MARGIN = 1.5  # what runs by all threads must gain over one: the cores have others to serve, and threads spin
_SHARED_SECONDS = 0.002  # what takes longer may have all cores
_LONG_SECONDS = 0.01  # of eager: by one thread callers would wait for too long, and it isn't tried
_MOST_ROUNDS = 12
_SHORT_SECONDS, _MOST_SHORT_ROUNDS = 0.05, 60  # what others delay shows in short runs: all rounds together take so long
_LEAST_ROUNDS = 3
_HOPELESS = 3.0  # times as slow as eager at its first run, of short ones the first few: not timed again
_TOLERANCE = 64.0  # units in the last place of the largest answer, for kernels that round otherwise


class Verdict(NamedTuple):
    """What a trial found.

    Attributes:
        kernel: the fastest, "eager" where none is clearly faster.
        results: of each other kernel: "fastest", "slower", "wrong" (another answer) or "failed" (an exception).
        ratios: eager's time by that of each other kernel that answered right.
        causes: of what is wrong or failed, for the log.
    """

    kernel: str
    results: dict[str, str]
    ratios: dict[str, float]
    causes: dict[str, str]

    @property
    def ratio(self) -> float:
        """Eager's time by that of the fastest."""
        return self.ratios.get(self.kernel, 1.0)


class Trial:
    """A trial of kernels against eager.

    Args:
        eager: what the others must agree with.
        kernels: the others, by name.
        exact: whether agreeing is having the same bits, or else being within 64 units in the last place.
        step: runs a piece of work where batches run.
        budget_seconds: most time of all runs together, but for the least that each needs.
    """

    def __init__(
        self, eager: Kernel, kernels: Mapping[str, Kernel], *, exact: bool, step: Step, budget_seconds: float
    ) -> None:
        self._eager = eager
        self._kernels = dict(kernels)
        self._exact = exact
        self._step = step
        self._budget_seconds = budget_seconds
        self._results: dict[str, str] = {}
        self._causes: dict[str, str] = {}

    def run(self, inputs: Inputs, *, is_shared: Sequence[bool], has_rows: bool) -> Verdict:
        """The verdict for inputs of a batch that callers sent.

        Args:
            inputs: of the batch.
            is_shared: which of them are weights.
            has_rows: whether axis 0 of the others is rows, of which there may as well be fewer.
        """
        self._drop_hopeless(inputs)
        samples, others = variants(inputs, is_shared, has_rows=has_rows)
        for sample in (*samples, *others):
            self._check(sample)
        best = self._times(samples)
        fastest = min(best, key=lambda name: _cost(name, best, len(samples)))
        for name in best:
            if name != EAGER:
                self._results[name] = "fastest" if name == fastest else "slower"
        ratios = {name: best[EAGER] / seconds for name, seconds in best.items() if name != EAGER}
        return Verdict(fastest, self._results, ratios, self._causes)

    def _drop_hopeless(self, inputs: Inputs) -> None:
        """Drops kernels of one thread where eager takes long by all."""
        names = [name for name in self._kernels if name.endswith(ONE_THREAD)]
        if names and min(self._step(partial(_seconds_of, self._eager, inputs)) for _ in range(2)) > _LONG_SECONDS:
            for name in names:
                del self._kernels[name]
                self._results[name] = "slower"

    def _check(self, sample: Inputs) -> None:
        """Drops kernels that don't agree on these inputs; what eager itself refuses says nothing."""
        try:
            expected = self._step(lambda: self._eager(*sample))
        except Exception:  # unusual values may be no indices, say
            return
        for name, kernel in list(self._kernels.items()):
            try:
                is_right = self._step(partial(self._is_right, kernel, sample, expected))
            except Exception as error:  # whatever it is, the kernel isn't used
                self._drop(name, "failed", repr(error))
            else:
                if not is_right:
                    self._drop(name, "wrong", "another answer than eager's")

    def _is_right(self, kernel: Kernel, sample: Inputs, expected: Sequence[torch.Tensor]) -> bool:
        return agree(kernel(*sample), expected, exact=self._exact)

    def _drop(self, name: str, result: str, cause: str) -> None:
        del self._kernels[name]
        self._results[name] = result
        self._causes[name] = cause

    def _times(self, samples: Sequence[Inputs]) -> dict[str, float]:
        """Seconds of each kernel, eager first: the sum over the samples of its shortest run of each."""
        kernels = {EAGER: self._eager, **self._kernels} if self._kernels else {EAGER: self._eager}
        seconds = {name: [math.inf] * len(samples) for name in kernels}
        spent = 0.0
        for number in range(1, _MOST_SHORT_ROUNDS + 1 if self._kernels else 2):
            for index, sample in enumerate(samples):
                for name, kernel in kernels.items():
                    elapsed = self._step(partial(_seconds_of, kernel, sample))
                    seconds[name][index] = min(seconds[name][index], elapsed)
                    spent += elapsed
            if number >= _LEAST_ROUNDS and spent > self._budget_seconds:
                break
            if number >= _MOST_ROUNDS and spent > _SHORT_SECONDS:
                break
            if number < _LEAST_ROUNDS and sum(seconds[EAGER]) < _LONG_SECONDS:
                continue
            limit = _HOPELESS * sum(seconds[EAGER])
            kernels = {name: kernel for name, kernel in kernels.items() if sum(seconds[name]) <= limit}
        return {name: sum(values) for name, values in seconds.items()}


def _cost(name: str, best: Mapping[str, float], samples: int) -> float:
    """Seconds of a kernel as they count: eager's less, and of short ones those that leave the other cores alone."""
    cost = best[name] * (1.0 if name == EAGER else _MARGIN)
    is_short = best[name] < _SHARED_SECONDS * samples
    has_one_thread = any(other.endswith(ONE_THREAD) for other in best)
    return cost * _SHARED_MARGIN if has_one_thread and is_short and not name.endswith(ONE_THREAD) else cost


def _seconds_of(kernel: Kernel, sample: Inputs) -> float:
    start = time.perf_counter()
    kernel(*sample)
    return time.perf_counter() - start


def agree(outputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], *, exact: bool) -> bool:
    """Whether outputs have the expected bits; or, not `exact`, are within 64 units in the last place of the largest."""
    return len(outputs) == len(expected) and all(
        output.dtype == other.dtype
        and output.shape == other.shape
        and (_same_bits(output, other) or (not exact and _is_close(output, other)))
        for output, other in zip(outputs, expected, strict=True)
    )


def _same_bits(output: torch.Tensor, expected: torch.Tensor) -> bool:
    flat, other = (tensor.contiguous().view(-1) for tensor in (output, expected))
    return not flat.numel() or torch.equal(flat.view(torch.uint8), other.view(torch.uint8))


def _is_close(output: torch.Tensor, expected: torch.Tensor) -> bool:
    if not output.is_floating_point():
        return False
    is_finite = expected.isfinite()
    if not torch.equal(is_finite, output.isfinite()):
        return False
    rest = ~is_finite  # infinities must be the same, and NaN where NaN is
    if not torch.equal(output[rest].nan_to_num(), expected[rest].nan_to_num()):
        return False
    values, others = output[is_finite].double(), expected[is_finite].double()
    if not values.numel():
        return True
    room = _TOLERANCE * torch.finfo(output.dtype).eps * float(others.abs().max())
    return float((values - others).abs().max()) <= room
