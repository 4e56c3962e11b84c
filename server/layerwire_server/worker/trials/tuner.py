"""The tuner: counts what is hot, tries other kernels for it beside the calls, and lets the fastest take over.

It knows lanes' keys, kernels and the store's choices; nothing of calls, frames or how batches are made.

What is tuned is an operator at sizes of its batches, rows counted by powers of 2. Trials run on a thread of their own;
each single run of a kernel goes where batches run, one at a time with pauses between, so that callers wait for at most
one. An exact kernel is used also where nothing can be written; one that rounds otherwise only once the store has it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Literal, TypeAlias

import torch

from layerwire.errors import LayerwireError
from layerwire_server.operators.operator import EAGER, WIRE_DTYPES, Kernel, Merge, Operator
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.trials.choices import Choices
from layerwire_server.worker.trials.trial import Inputs, Step, Trial, Verdict

log = logging.getLogger(__name__)

Submit: TypeAlias = Callable[[Callable[[], Any]], "Future[Any]"]  # to the thread that runs batches

_HOT_SECONDS = 0.1  # of kernel time, after which a trial has something to win
_HOT_BATCHES = 5
_MOST_BYTES = 128 * 1024**2  # of inputs: a trial makes some copies of them
_BUDGET_SECONDS = 1.5  # of one trial
_STARTUP_SECONDS = 20.0  # of all trials before a worker serves
_PAUSE = 2.0  # times as long as a run, before the next
_LOOK_SECONDS = 5.0  # between looks for choices that other workers made
_MOST_SITES = 4096
_MOST_SIZES = 64  # of one lane
_NO_SITES: dict[Any, Any] = {}  # of a lane whose operator eager alone can run


class Site:
    """What runs in one place: an operator at one size of batches, and its kernel there, eager at first.

    Attributes:
        key: names it in the store.
        operator: what is run.
        kernels: the ways there are besides eager, by name.
        name: of the kernel that runs.
        has_rows: whether axis 0 of its inputs is rows.
        is_open: whether a trial may yet be held.
    """

    __slots__ = ("_kernel", "batches", "has_rows", "is_open", "kernels", "key", "name", "operator", "sample", "seconds")

    def __init__(
        self, key: str, operator: Operator, kernels: Mapping[str, Kernel], *, has_rows: bool, is_open: bool
    ) -> None:
        self.has_rows = has_rows
        self.key = key
        self.operator = operator
        self.kernels = kernels
        self.name = EAGER
        self.is_open = is_open
        self.batches = 0
        self.seconds = 0.0
        self.sample: Inputs | None = None
        self._kernel: Kernel | None = None

    def choose(self, name: str) -> None:
        """This kernel runs from now on; eager if there is none of the name."""
        self.is_open = False
        self.sample = None
        self._kernel = self.kernels.get(name)
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
            self.choose(EAGER)
        return outputs


class Tuner:
    """The kernels of a worker.

    Attributes:
        trials: kernels tried, by operator, kernel and "fastest", "slower", "wrong" or "failed".
        batches: batches run by another kernel than eager, by operator and kernel.

    Args:
        mode: "background" tries what is hot while calls are served, "startup" only what ran before `try_all`.
        choices: those of the store.
    """

    def __init__(self, mode: Literal["background", "startup"], choices: Choices) -> None:
        self.trials: Counter[tuple[str, str, str]] = Counter()
        self.batches: Counter[tuple[str, str]] = Counter()
        self._mode = mode
        self._choices = choices
        self._is_open = True  # to trials of what comes
        self._sites: OrderedDict[str, Site] = OrderedDict()
        self._queue: queue.SimpleQueue[Site | None] = queue.SimpleQueue()
        self._is_waiting = False  # whether a site waits for its trial: one at a time, for the memory of its inputs
        self._end = threading.Event()
        self._submit: Submit | None = None
        self._thread: threading.Thread | None = None

    def site(self, key: LaneKey, tensors: Sequence[Any]) -> Site | None:
        """Where a batch runs; None where eager is all there is."""
        sites: dict[Any, Site] | None = key.kernels
        if sites is None:
            sites = key.kernels = {} if _is_tunable(key) else _NO_SITES
        if sites is _NO_SITES:
            return None
        shape = tensors[0].shape
        size = shape[0].bit_length() if key.merge is Merge.ROWS else shape
        site = sites.get(size)
        if site is None and len(sites) < _MOST_SIZES:
            site = sites[size] = self._find(key, tensors)
        return site

    def count(self, site: Site, tensors: Sequence[Any], seconds: float) -> None:
        """A batch ran there; where it is hot by now, its inputs are copied for a trial."""
        if site.name != EAGER:
            self.batches[site.operator.title, site.name] += 1
        if not site.is_open:
            return
        if self._mode == "startup":
            self._remember(site, tensors)
            return
        site.batches += 1
        site.seconds += seconds
        if self._is_waiting or site.seconds < _HOT_SECONDS or site.batches < _HOT_BATCHES:
            return
        if _nbytes(tensors) > _MOST_BYTES:
            site.is_open = False
            return
        self._is_waiting = True
        site.is_open = False
        # Inputs of calls may lie in memory that is written anew once they are answered.
        site.sample = tuple(_copy_of(tensor) for tensor in tensors)
        self._queue.put(site)

    def start(self, submit: Submit) -> None:
        """Tries what is hot from now on, each run of a kernel submitted; and looks for other workers' choices."""
        self._submit = submit
        self._thread = threading.Thread(target=self._work, name="tuner", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, and a trial with it."""
        self._end.set()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    def try_all(self, budget_seconds: float = _STARTUP_SECONDS) -> int:
        """With "startup", tries what ran in the warm-up, within a time, and nothing after; how many sites."""
        if self._mode != "startup":
            return 0
        self._is_open = False
        end_time = time.monotonic() + budget_seconds
        trials = 0
        for site in list(self._sites.values()):
            if site.sample is not None and time.monotonic() < end_time:
                self._settle(site, _in_inference_mode)
                trials += 1
            site.is_open = False
            site.sample = None
        return trials

    @property
    def kernels(self) -> dict[str, str]:
        """What another kernel than eager runs, and which."""
        return {site.key: site.name for site in list(self._sites.values()) if site.name != EAGER}

    def _remember(self, site: Site, tensors: Sequence[Any]) -> None:
        """For `try_all`. Inputs of a warm-up are zeros, so others are made."""
        if site.sample is None and _nbytes(tensors) <= _MOST_BYTES:
            site.sample = tuple(_random_like(tensor) for tensor in tensors)

    def _find(self, key: LaneKey, tensors: Sequence[Any]) -> Site:
        name = _name(key, tensors)
        site = self._sites.get(name)
        if site is None:
            operator, kernels = key.operator, key.operator.kernels()
            site = self._sites[name] = Site(
                name, operator, kernels, has_rows=key.merge is Merge.ROWS, is_open=self._is_open
            )
            if len(self._sites) > _MOST_SITES:
                self._sites.popitem(last=False)
            choice = self._choices.get(name)
            if choice is not None:
                site.choose(choice)
        return site

    def _work(self) -> None:
        while not self._end.is_set():
            try:
                site = self._queue.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                self._adopt()
                continue
            if site is None:
                return
            try:
                self._settle(site, self._run_and_pause)
            except _EndError:
                self._choices.end_trial()
                return
            except Exception:  # the worker lives on by eager
                log.exception("the trial of %s failed", site.key)
                self._choices.end_trial()
                site.choose(EAGER)
            self._is_waiting = False

    def _adopt(self) -> None:
        """Lets kernels take over that other workers have chosen meanwhile."""
        if not self._choices.reread():
            return
        for site in list(self._sites.values()):
            choice = self._choices.get(site.key)
            if choice is not None and site.name == EAGER and site.is_open:
                site.choose(choice)

    def _settle(self, site: Site, step: Step) -> None:
        self._choices.reread()
        choice = self._choices.get(site.key)
        if choice is None:
            choice = self._try(site, step)
        site.choose(choice)

    def _try(self, site: Site, step: Step) -> str:
        """Holds the trial of a site; the name of the kernel that is to run."""
        operator = site.operator
        if self._choices.read_only and not operator.kernels_are_exact:
            return EAGER
        assert site.sample is not None
        self._choices.begin_trial(site.key)
        trial = Trial(
            operator.run,
            site.kernels,
            exact=operator.kernels_are_exact,
            step=step,
            budget_seconds=_BUDGET_SECONDS,
        )
        is_shared = [role.shared for role in operator.inputs]
        verdict = trial.run(site.sample, is_shared=is_shared, has_rows=site.has_rows)
        self._choices.end_trial()
        self._report(site, verdict)
        stands = self._choices.put(site.key, verdict.kernel)
        if stands is None:
            return verdict.kernel if operator.kernels_are_exact else EAGER
        return stands

    def _report(self, site: Site, verdict: Verdict) -> None:
        for name, result in verdict.results.items():
            self.trials[site.operator.title, name, result] += 1
            if name in verdict.causes:
                log.warning("kernel %s of %s is dropped: %s", name, site.key, verdict.causes[name])
        ratio = round(verdict.ratio, 2)
        fields = {"operator": site.key, "kernel": verdict.kernel, "times_as_fast": ratio}
        log.info("kernels were tried", extra={"fields": fields})

    def _run_and_pause(self, work: Callable[[], Any]) -> Any:
        """What the work gives, run where batches run, with a pause behind it."""
        if self._end.is_set():
            raise _EndError
        assert self._submit is not None
        seconds = 0.0

        def step() -> Any:
            nonlocal seconds
            start = time.monotonic()
            try:
                return _in_inference_mode(work)
            finally:
                seconds = time.monotonic() - start

        try:
            return self._submit(step).result()
        finally:
            self._end.wait(_PAUSE * seconds)


class _EndError(Exception):
    """The worker ends."""


def _is_tunable(key: LaneKey) -> bool:
    operator = key.operator
    if key.deterministic and (operator.tile_rows is not None or not operator.kernels_are_exact):
        return False
    return bool(operator.kernels())


def _in_inference_mode(work: Callable[[], Any]) -> Any:
    with torch.inference_mode():
        return work()


def _name(key: LaneKey, tensors: Sequence[Any]) -> str:
    """What is tuned, in words that are the same in every worker and after a restart."""
    parts = []
    for role, tensor in zip(key.operator.inputs, tensors, strict=True):
        if not isinstance(tensor, torch.Tensor):
            continue  # left out, or a program's weights, which its digest stands for
        shape: list[int | str] = list(tensor.shape)
        if key.merge is Merge.ROWS and not role.shared:
            shape[0] = f"<{1 << tensor.shape[0].bit_length()}"
        parts.append(f"{str(tensor.dtype).removeprefix('torch.')}[{', '.join(map(str, shape))}]")
    return f"{key.operator!r} {' '.join(parts)}"


def _nbytes(tensors: Sequence[Any]) -> int:
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))


def _copy_of(tensor: Any) -> Any:
    return tensor.clone() if isinstance(tensor, torch.Tensor) else tensor


def _random_like(tensor: Any) -> Any:
    """Numbers as callers may send: normal ones, or small integers."""
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in WIRE_DTYPES:
        return tensor
    generator = torch.Generator().manual_seed(0)
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
    return torch.randint(0, 2, tensor.shape, generator=generator).to(tensor.dtype)
