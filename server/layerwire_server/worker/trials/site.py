"""A site: an operator at one size of its batches, the ways there are to run it, and the one that runs it now.

It knows operators and lanes' keys; nothing of trials or of how a way is chosen.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from layerwire.errors import LayerwireError
from layerwire_server.operators.linear_kernels import has_blocks
from layerwire_server.operators.operator import EAGER, Kernel, Merge, Operator
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.trials.samples import Inputs
from layerwire_server.worker.trials.trial import ONE_THREAD

log = logging.getLogger(__name__)

_MOST_KEY = 400  # characters of an operator's in a site's key


def kernels_of(operator: Operator, threads: int) -> dict[str, Kernel]:
    """An operator's kernels besides eager, by name; those that go by all of torch's threads also on one of them.

    Threads of OpenMP spin for milliseconds behind a piece of work that they shared, on cores that the gateway needs.
    """
    kernels = dict(operator.kernels())
    if operator.is_parallel and threads > 1:
        shared = {EAGER: operator.run, **kernels}
        kernels |= {name + ONE_THREAD: _on_one_thread(kernel, threads) for name, kernel in shared.items()}
    return kernels


def _on_one_thread(kernel: Kernel, threads: int) -> Kernel:
    def run(*tensors: Any) -> tuple[torch.Tensor, ...]:
        torch.set_num_threads(1)  # of the thread that this runs on
        try:
            return kernel(*tensors)
        finally:
            torch.set_num_threads(threads)

    return run


class Site:
    """What runs in one place: an operator at one size of batches, and its kernel there, eager at first.

    Attributes:
        key: names it in the store.
        operator: what is run.
        kernels: the ways there are besides eager, by name.
        name: of the kernel that runs.
        has_rows: whether axis 0 of its inputs is rows.
        is_open: whether a trial may yet be held.
        is_failing: whether a kernel failed where eager didn't: eager runs from then on.
        check_time: until when, on the monotonic clock, the kernel stays what it is.
        batches: how many ran while it was open.
        seconds: how long they took.
        sample: inputs for a trial.
        threads: of torch, that run it.
    """

    __slots__ = (
        "_kernel",
        "_on_failure",
        "batches",
        "check_time",
        "has_rows",
        "is_failing",
        "is_open",
        "kernels",
        "key",
        "name",
        "operator",
        "sample",
        "seconds",
        "threads",
    )

    def __init__(
        self,
        key: str,
        operator: Operator,
        kernels: Mapping[str, Kernel],
        on_failure: Callable[[Site], None],
        *,
        has_rows: bool,
        is_open: bool,
    ) -> None:
        self.key = key
        self.operator = operator
        self.kernels = kernels
        self.name = EAGER
        self.has_rows = has_rows
        self.is_open = is_open
        self.is_failing = False
        self.check_time = 0.0
        self.batches = 0
        self.seconds = 0.0
        self.threads = 1
        self.sample: Inputs | None = None
        self._kernel: Kernel | None = None
        self._on_failure = on_failure

    def choose(self, name: str) -> None:
        """This kernel runs from now on; eager if there is none of the name, or one has failed."""
        self.is_open = False
        self.sample = None
        self._kernel = None if self.is_failing else self.kernels.get(name)
        self.name = EAGER if self._kernel is None else name

    def run(self, tensors: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """What the operator gives; a kernel that fails where eager doesn't never runs again.

        Raises:
            Exception: what eager raises.
        """
        kernel = self._kernel
        if kernel is None:
            return self.operator.run(*tensors)
        try:
            return kernel(*tensors)
        except LayerwireError:  # elements that a node can't take
            raise
        except Exception as error:  # whatever it is, eager has the last word
            cause = repr(error)
        outputs = self.operator.run(*tensors)
        if self._kernel is not None:
            log.error("kernel %s of %s failed and is dropped: %s", self.name, self.key, cause)
            self.is_failing = True
            self.choose(EAGER)
            self._on_failure(self)
        return outputs


def is_tunable(key: LaneKey, threads: int) -> bool:
    """Whether there is more than one way to run what a lane runs."""
    operator = key.operator
    if key.deterministic and (operator.tile_rows is not None or not operator.kernels_are_exact):
        return False
    return bool(kernels_of(operator, threads))


def site_key(key: LaneKey, tensors: Sequence[Any]) -> str:
    """What is tuned, in words that are the same in every worker and after a restart: operator, then tensors.

    Rows are counted by powers of 2: "<8" are 4 to 7. Weights of which kernels may keep something are "stored".
    """
    parts = []
    for role, tensor in zip(key.operator.inputs, tensors, strict=True):
        if not isinstance(tensor, torch.Tensor):
            continue  # left out, or a program's weights, which its digest stands for
        shape: list[int | str] = list(tensor.shape)
        if key.merge is Merge.ROWS and not role.shared:
            shape[0] = f"<{1 << tensor.shape[0].bit_length()}"
        stored = " stored" if has_blocks(tensor) else ""
        parts.append(f"{str(tensor.dtype).removeprefix('torch.')}[{', '.join(map(str, shape))}]{stored}")
    operator = repr(key.operator)
    if len(operator) > _MOST_KEY:  # a program with very many outputs, say
        operator = f"{operator[: _MOST_KEY // 2]}... sha256 {hashlib.sha256(operator.encode()).hexdigest()})"
    return f"{operator} {' '.join(parts)}"
