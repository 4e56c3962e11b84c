"""What is measured in turn: Layerwire and what it is compared with, all by one interface.

It knows the load tester's parts, h2load and torch here; neither which rows there are nor how they are shown.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from layerwire_bench.answers.difference import difference
from layerwire_bench.calling.processes import ClientProcesses
from layerwire_bench.measuring.measurement import Measurement, Outcome, TargetSetup
from layerwire_bench.plan import Job, Pace, TargetSpec
from layerwire_bench.result import Load
from layerwire_bench.workload import Arrays, Sample, Workload
from tools.benchmarks import driver, processes

WARMUP_SECONDS = 0.4
WINDOW_SECONDS = 0.1
LONGEST_SECONDS = 20.0  # of a turn; one that no call came to its end in is made longer
CHECK_SECONDS = 0.05  # between looks at an answer of what h2load drives


class WrongAnswerError(Exception):
    """An answer was not what it should be; what was measured says nothing."""


@dataclass(frozen=True)
class Turn:
    """One measurement.

    Attributes:
        throughput: answers per second, or images, whatever the row counts.
        cpu_microseconds: processor time a call by process; the driver's is "client".
        checks: answers that were compared with what they should be.
    """

    throughput: float
    p50_seconds: float
    p99_seconds: float
    cpu_microseconds: dict[str, float] = field(default_factory=dict)
    failures: int = 0
    checks: int = 0


class Contender(ABC):
    """One of those that are measured in turn; `name` is what the table calls it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def turn(self, callers: int, seconds: float) -> Turn:
        """Measures once.

        Raises:
            WrongAnswerError: an answer was wrong.
        """


class Session:
    """A client process of the load tester with its targets open, for as long as a row takes."""

    def __init__(self, workload: Workload, specs: Sequence[TargetSpec], timeout_seconds: float = 30.0) -> None:
        job = Job(tuple(specs), workload, "sample", 0, timeout_seconds)
        self._workload, self._specs, self._timeout_seconds = workload, specs, timeout_seconds
        self._processes = ClientProcesses(job, 1)

    def close(self) -> None:
        """Ends the process."""
        self._processes.close()

    def outcome(self, target: int, load: Load, pace: Pace, bound_seconds: float = float("inf")) -> Outcome:
        """One load on one target.

        Raises:
            WrongAnswerError: an answer was wrong.
        """
        spec = self._specs[target]
        setup = TargetSetup(
            self._processes, self._workload, pace, (target, str(spec)), None, lambda *_: None, time.monotonic(),
            self._timeout_seconds, spec.address is not None,
        )  # fmt: skip
        outcome = Measurement(setup, load, bound_seconds).run()
        if outcome.point.wrong:
            raise WrongAnswerError(f"{spec}: {outcome.point.first_wrong}")
        return outcome


class LoadTesterContender(Contender):
    """A target that the load tester drives, as the SDK's users do."""

    def __init__(self, name: str, session: Session, target: int, pid: int | None) -> None:
        super().__init__(name)
        self._session, self._target, self._pid = session, target, pid

    def turn(self, callers: int, seconds: float) -> Turn:
        pace = Pace(WARMUP_SECONDS, WINDOW_SECONDS, duration_seconds=seconds)
        with processor_time(self._pid) as used:
            point = self._session.outcome(self._target, Load("closed", callers=callers), pace).point
        calls = sum(window.calls for window in point.windows)
        cpu = {"client": (point.client.cpu_seconds_per_call or 0.0) * 1e6}
        cpu |= {name: usage.seconds / max(calls, 1) * 1e6 for name, usage in used.items()}
        latency = point.latency
        if latency is None:
            if point.first_error is None and seconds < LONGEST_SECONDS:
                return self.turn(callers, seconds * 3)
            raise RuntimeError(f"{self.name}: no call was answered: {point.first_error}")
        return Turn(point.throughput, latency.p50_seconds, latency.p99_seconds, cpu, point.failures, point.verified)


class DriverContender(Contender):
    """A server that h2load drives; answers are looked at on a connection beside it while the load is on.

    Args:
        ask: makes the same call once, and gives its outputs.
        is_large: whether answers are looked at before and after only, since one costs what many calls cost.
    """

    def __init__(
        self, name: str, post: driver.Post, ask: Callable[[], Arrays], sample: Sample, pid: int, *, is_large: bool
    ) -> None:
        super().__init__(name)
        self._post, self._ask, self._sample, self._pid, self._is_large = post, ask, sample, pid, is_large
        self._answer_bytes: int | None = None

    def turn(self, callers: int, seconds: float) -> Turn:
        if self._answer_bytes is None:
            self._answer_bytes = driver.answer_bytes(self._post)
        with processor_time(self._pid) as used, self._checks() as checks:
            ends, durations, client = driver.drive(self._post, callers, WARMUP_SECONDS + seconds, self._answer_bytes)
        measured = ends >= ends[-1] - seconds
        calls = len(ends)
        cpu = {"client": client / calls * 1e6}
        cpu |= {name: usage.seconds / calls * 1e6 for name, usage in used.items()}
        p50, p99 = np.percentile(durations[measured], [50, 99]).tolist()
        return Turn(int(measured.sum()) / seconds, p50, p99, cpu, 0, len(checks))

    def _check(self) -> str | None:
        expected = self._sample.expected
        assert expected is not None
        return difference(expected, self._ask(), self._sample.rtol, self._sample.atol)

    @contextlib.contextmanager
    def _checks(self) -> Iterator[list[str | None]]:
        """What was found of answers in the meantime, None of a right one."""
        found, end = [self._check()], threading.Event()

        def look() -> None:
            while not end.wait(CHECK_SECONDS):
                found.append(self._check())

        thread = threading.Thread(target=look)
        if not self._is_large:
            thread.start()
        try:
            yield found
        finally:
            end.set()
            if not self._is_large:
                thread.join()
        found.append(self._check())
        wrong = next((sentence for sentence in found if sentence is not None), None)
        if wrong is not None:
            raise WrongAnswerError(f"{self.name}: {wrong}")


class InProcessContender(Contender):
    """A function called in this process, one call after another; `rows` are what a call counts for.

    Args:
        pid: of the server that it asks; None where it asks none.
    """

    def __init__(self, name: str, function: Callable[[], object], rows: int, pid: int | None = None) -> None:
        super().__init__(name)
        self._function, self._rows, self._pid = function, rows, pid

    def turn(self, callers: int, seconds: float) -> Turn:
        self._latencies(WARMUP_SECONDS)
        cpu = time.process_time()
        with processor_time(self._pid) as used:
            latencies = self._latencies(seconds)
        count = len(latencies) * self._rows
        costs = {"client": (time.process_time() - cpu) / count * 1e6}
        costs |= {name: usage.seconds / count * 1e6 for name, usage in used.items()}
        p50, p99 = statistics.median(latencies), float(np.percentile(latencies, 99))
        return Turn(count / sum(latencies), p50, p99, costs)

    def _latencies(self, seconds: float) -> list[float]:
        """Of calls for so long."""
        latencies: list[float] = []
        start = time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            self._function()
            latencies.append(time.perf_counter() - now)
        return latencies


@contextlib.contextmanager
def processor_time(pid: int | None) -> Iterator[dict[str, processes.Usage]]:
    """What a server's processes used in the meantime, by role; it is filled in at the end."""
    used: dict[str, processes.Usage] = {}
    before: Mapping[str, processes.Usage] = {} if pid is None else processes.by_role(processes.descendants(pid))
    yield used
    if pid is not None:
        used |= processes.growth(before, processes.by_role(processes.descendants(pid)))
