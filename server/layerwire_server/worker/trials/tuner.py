"""The tuner: counts what is hot, tries other kernels for it beside the calls, and lets the fastest take over.

It knows lanes' keys, kernels and the store's choices; nothing of calls, frames or how batches are made.

What is tuned is an operator at sizes of its batches, rows counted by powers of 2. Trials run on a thread of their own;
each single run of a kernel goes where batches run, one at a time with pauses between, so that callers wait for at most
one. Which kernel runs follows from the store's choices and the clock alone, so it is the same in every worker; only a
kernel with eager's bits is used also where nothing can be written.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, TypeAlias

import torch

from layerwire_server.operators.operator import EAGER, Merge
from layerwire_server.worker.plan import LaneKey
from layerwire_server.worker.trials import samples
from layerwire_server.worker.trials.choices import KNOWN_SECONDS, Candidate, Choice, Choices
from layerwire_server.worker.trials.site import Site, is_tunable, kernels_of, site_key
from layerwire_server.worker.trials.trial import Step, Trial, Verdict

log = logging.getLogger(__name__)

Submit: TypeAlias = Callable[[Callable[[], Any]], "Future[Any]"]  # to the thread that runs batches

_HOT_SECONDS = 0.1  # of kernel time, after which a trial has something to win
_HOT_BATCHES = 5
_MOST_BYTES = 128 * 1024**2  # of inputs: a trial makes some copies of them
_BUDGET_SECONDS = 1.5  # of one trial
_STARTUP_SECONDS = 20.0  # of all trials before a worker serves
_PAUSE = 2.0  # times as long as a run, before the next
_LOOK_SECONDS = KNOWN_SECONDS / 2  # between looks for others' choices, so that batches need not look themselves
_MOST_SITES = 4096
_MOST_SIZES = 64  # of one lane
_NO_SITES: dict[Any, Any] = {}  # of a lane whose operator eager alone can run


class Tuner:
    """The kernels of a worker.

    Attributes:
        choices: those of the store.
        trials: kernels tried, by operator, kernel and "fastest", "slower", "wrong" or "failed".
        batches: batches run by another kernel than eager, by operator and kernel.

    Args:
        mode: "background" tries what is hot while calls are served, "startup" only what ran before `try_all`.
        choices: see there.
    """

    def __init__(self, mode: Literal["background", "startup"], choices: Choices) -> None:
        self.choices = choices
        self.trials: Counter[tuple[str, str, str]] = Counter()
        self.batches: Counter[tuple[str, str]] = Counter()
        self._threads = torch.get_num_threads()
        self._mode = mode
        self._is_open = True  # to trials of what comes
        self._sites: OrderedDict[str, Site] = OrderedDict()
        self._queue: queue.SimpleQueue[Site | None] = queue.SimpleQueue()
        self._is_waiting = False  # whether a site waits for its trial: one at a time, for the memory of its inputs
        self._end = threading.Event()
        self._submit: Submit | None = None
        self._thread: threading.Thread | None = None

    def site(self, key: LaneKey, tensors: Sequence[Any], threads: int = 0) -> Site | None:
        """Where a batch runs that begins now, by so many threads, 0 for all; None where eager is all there is."""
        threads = threads or self._threads
        sites: dict[Any, Site] | None = key.kernels
        if sites is None:
            sites = key.kernels = {} if is_tunable(key, self._threads) else _NO_SITES
        if sites is _NO_SITES:
            return None
        shape = tensors[0].shape
        size = shape[0].bit_length() if key.merge is Merge.ROWS else shape, threads
        site = sites.get(size)
        if site is None:
            if len(sites) >= _MOST_SIZES:
                return None
            site = sites[size] = self._find(key, tensors, threads)
        if time.monotonic() >= site.check_time:
            self._update(site)
        return site

    def count(self, site: Site, tensors: Sequence[Any], seconds: float) -> None:
        """A batch ran there; where it is hot by now, its inputs are copied for a trial."""
        if site.name != EAGER:
            self.batches[site.operator.title, site.name] += 1
        if not site.is_open:
            return
        if self._mode == "startup":
            if site.sample is None and samples.nbytes(tensors) <= _MOST_BYTES:
                site.sample = samples.random_inputs(tensors)  # a warm-up's own are zeros
            return
        site.batches += 1
        site.seconds += seconds
        if self._is_waiting or site.seconds < _HOT_SECONDS or site.batches < _HOT_BATCHES:
            return
        site.is_open = False
        if samples.nbytes(tensors) > _MOST_BYTES:
            return
        self._is_waiting = True
        # Inputs of calls may lie in memory that is written anew once they are answered.
        site.sample = samples.copies(tensors)
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
        """With "startup", tries what ran in the warm-up, within a time, and nothing after; how many sites.

        Returns when all that was chosen runs, so that no answer's bits change while the worker serves.
        """
        if self._mode != "startup":
            return 0
        self._is_open = False
        end_time = time.monotonic() + budget_seconds
        trials = 0
        for site in list(self._sites.values()):
            if site.is_open and site.sample is not None and time.monotonic() < end_time:
                self._settle(site, self._run)
                trials += 1
            site.is_open = False
            site.sample = None
        time.sleep(max((self.choices.delay(choice) for choice in self.choices.all.values()), default=0.0))
        return trials

    def _find(self, key: LaneKey, tensors: Sequence[Any], threads: int) -> Site:
        name = site_key(key, tensors)
        if threads < self._threads:
            name += f" on {threads}"
        site = self._sites.get(name)
        if site is None:
            operator, has_rows = key.operator, key.merge is Merge.ROWS
            kernels = kernels_of(operator, threads)
            site = self._sites[name] = Site(
                name, operator, kernels, self._queue.put, has_rows=has_rows, is_open=self._is_open and bool(kernels)
            )
            site.threads = threads
            if len(self._sites) > _MOST_SITES:
                self._sites.popitem(last=False)
        return site

    def _update(self, site: Site) -> None:
        """Lets the kernel run there that the store's choices want now."""
        choice, known_until = self.choices.get(site.key)
        site.check_time = known_until
        if choice is None:
            return
        site.is_open = False
        if choice.kernel != site.name and not self.choices.delay(choice):
            site.choose(choice.kernel)

    def _work(self) -> None:
        while not self._end.is_set():
            try:
                site = self._queue.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                self.choices.look()
                continue
            if site is None:
                return
            try:
                if site.is_failing:
                    self.choices.put(site.key, Choice(EAGER, site.operator.title, _is_exact(site)), replace=True)
                    continue
                self._settle(site, self._run_and_pause)
            except _EndError:
                self.choices.end_trial()
                return
            except Exception:  # the worker lives on by eager
                log.exception("the trial of %s failed", site.key)
                self.choices.end_trial()
            site.sample = None
            self._is_waiting = False

    def _settle(self, site: Site, step: Step) -> None:
        """Holds the trial of a site, unless a choice has been made meanwhile."""
        self.choices.look()
        exact = _is_exact(site)
        if self.choices.get(site.key)[0] is None and (exact or not self.choices.read_only):
            assert site.sample is not None
            self.choices.begin_trial(site.key, site.operator.title)
            trial = Trial(
                site.operator.run,
                site.kernels,
                exact=exact,
                step=_on_threads(site.threads, step),
                budget_seconds=_BUDGET_SECONDS,
            )
            is_shared = [role.shared for role in site.operator.inputs]
            verdict = trial.run(site.sample, is_shared=is_shared, has_rows=site.has_rows)
            self.choices.end_trial()
            self._report(site, verdict)
            candidates = tuple(
                Candidate(name, result, verdict.ratios.get(name, 0.0)) for name, result in verdict.results.items()
            )
            self.choices.put(site.key, Choice(verdict.kernel, site.operator.title, exact, candidates))
        site.check_time = 0.0

    def _report(self, site: Site, verdict: Verdict) -> None:
        for name, result in verdict.results.items():
            self.trials[site.operator.title, name, result] += 1
            if name in verdict.causes:
                log.warning("kernel %s of %s is dropped: %s", name, site.key, verdict.causes[name])
        ratio = round(verdict.ratio, 2)
        fields = {"operator": site.key, "kernel": verdict.kernel, "times_as_fast": ratio}
        log.info("kernels were tried", extra={"fields": fields})

    def _run(self, work: Callable[[], Any]) -> Any:
        """What the work gives, run as batches are."""
        torch.set_num_threads(self._threads)  # of this thread: it might have begun while another ran by one
        with torch.inference_mode():
            return work()

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
                return self._run(work)
            finally:
                seconds = time.monotonic() - start

        try:
            return self._submit(step).result()
        finally:
            self._end.wait(_PAUSE * seconds)


def _on_threads(threads: int, step: Step) -> Step:
    """The step, by so many threads."""

    def run(work: Callable[[], Any]) -> Any:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return work()
        finally:
            torch.set_num_threads(before)

    return lambda work: step(lambda: run(work))


class _EndError(Exception):
    """The worker ends."""


def _is_exact(site: Site) -> bool:
    return site.operator.kernels_are_exact
