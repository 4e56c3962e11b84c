"""Windows, steadiness, and what counts for a point, with reports that the test writes."""

import numpy as np
import pytest

from layerwire.calls import Requests
from layerwire_bench.calling.process import EndReport, WindowReport
from layerwire_bench.calling.processes import ClientProcessError
from layerwire_bench.calling.tally import CODES, Notes
from layerwire_bench.measuring.measurement import InterruptError, Measurement, TargetLostError, TargetSetup
from layerwire_bench.plan import Pace
from layerwire_bench.result import Load
from layerwire_bench.workload import Entry, Sample, Workload

START = 1000.0  # as time.monotonic() has it
WORK = Workload(
    (Entry("a", "a", 1.0),), (Sample(0, Requests().relu(np.zeros(1, "float32")), None, 0.0, 0.0),), "nothing"
)
CLOSED, OPEN = Load("closed", callers=1), Load("constant", rate=10.0)


def notes(*calls, late=()):
    """Calls as (due after the start, seconds, status)."""
    due, seconds, codes = zip(*calls, strict=True) if calls else ((), (), ())
    return Notes(
        START + np.array(due, float), np.array(seconds, float), np.array(late, float),
        np.zeros(len(due), np.uint16), np.array([CODES.index(code) for code in codes], np.uint8),
    )  # fmt: skip


def calls(window, count, seconds=0.01, code="OK"):
    """So many in a window, evenly."""
    return notes(*((window + (number + 0.5) / count, seconds, code) for number in range(count)))


def report(window, what, wrong=0, first_error=None):
    return WindowReport(window, what, first_error, 0.5, 0.4, (0.001,), wrong)


class Scripted:
    """A crew whose reports are there at once; the last are repeated by `more`."""

    def __init__(self, windows, ended=None, processes=1, more=None):
        self._windows = iter(windows)
        self._more = more
        self._number = 0
        self._processes = processes
        self._ended = ended or EndReport(notes(), None, 0, 7, (0,), None)
        self.asked_to_end = False

    def __len__(self):
        return self._processes

    def begin(self, target, load, window_seconds):
        assert window_seconds == 1.0
        return START

    def end(self):
        self.asked_to_end = True

    def reports(self, timeout_seconds):
        if self.asked_to_end:
            return [(process, self._ended) for process in range(self._processes)]
        found = next(self._windows, None)
        if isinstance(found, BaseException):
            raise found
        if found is None:
            found = self._more(self._number)
        self._number += 1
        return [(process, found) for process in range(self._processes)]


class Counting:
    def __init__(self):
        self.marks = 0
        self.asked = []

    def mark(self):
        self.marks += 1
        return self.marks

    def between(self, first, last, calls):
        self.asked.append((first, last, calls))


def measure(crew, load=CLOSED, pace=None, counts=None, bound=float("inf"), seen=None):
    watch = (lambda _load, window: seen.append(window)) if seen is not None else lambda *_: None
    setting = TargetSetup(crew, WORK, pace or Pace(), (0, "here"), counts, watch, START - 5, 1.0, remote=True)
    return Measurement(setting, load, bound).run()


def test_it_ends_when_three_windows_agree_after_the_warm_up():
    rates = [10, 50, 80, 100, 101, 99]
    seen = []
    measured = measure(Scripted(report(n, calls(n, rate)) for n, rate in enumerate(rates)), seen=seen)
    point = measured.point
    assert len(seen) == 6
    assert point.steady
    assert (point.calls, point.seconds, point.throughput) == (429, 5.0, 85.8)  # one of the last ended after it
    assert [window.measured for window in point.windows] == [False, True, True, True, True, True]
    assert point.start_seconds == 5 + 1
    assert point.latency.p50_seconds == pytest.approx(0.01, rel=1e-3)


def test_latency_must_agree_too():
    slow = [0.01, 0.01, 0.02, 0.03, 0.03, 0.03, 0.03]
    measured = measure(Scripted(report(n, calls(n, 50, seconds)) for n, seconds in enumerate(slow)))
    assert len(measured.point.windows) == 6  # windows 3, 4, 5


def test_windows_that_never_agree_are_told_so():
    crew = Scripted([], more=lambda n: report(n, calls(n, 10 if n % 2 else 100)))
    point = measure(crew).point
    assert not point.steady
    assert len(point.windows) == 1 + 10
    assert sum(window.measured for window in point.windows) == 10


def test_a_stall_counts_though_quiet_windows_follow():
    """The server stands still in the third second: what waited for it must be in the figures."""
    stalled = notes(*((2 + 0.1 * k, 1.0 - 0.1 * k, "OK") for k in range(10)))
    windows = [calls(0, 10), calls(1, 10), notes(), stalled, *(calls(n, 20) for n in (4, 5, 6))]
    point = measure(Scripted(report(n, what) for n, what in enumerate(windows)), load=OPEN).point
    assert point.steady
    assert point.latency.maximum_seconds == 1.0
    assert point.latency.p90_seconds > 0.1


def test_calls_that_were_never_sent_count_with_what_they_waited_at_least():
    ended = EndReport(notes(), None, 0, 0, (), None, unsent=(5, 100, 100, 100, 77))
    measured = measure(Scripted([], ended, more=lambda n: report(n, calls(n, 100))), load=OPEN, bound=0.05)
    point = measured.point
    assert (point.unsent, measured.due, measured.within_bound) == (300, 600, 300)
    assert point.latency.p99_seconds == pytest.approx(2.5, rel=1e-3)
    assert point.latency.p50_seconds < 1.0


def test_a_duration_is_steady_only_as_a_whole():
    pace = Pace(duration_seconds=6.0)
    rates = [10, 10, 90, 10, 10, 10, 10]
    point = measure(Scripted(report(n, calls(n, rate)) for n, rate in enumerate(rates)), pace=pace).point
    assert not point.steady


def test_a_call_counts_in_the_window_where_it_ended_and_for_the_point_where_it_was_due():
    windows = [
        report(0, notes((0.5, 0.1, "OK"))),
        report(1, notes((1.5, 0.1, "OK"), (1.9, 0.15, "OK"))),  # the last came while the report was on its way
        report(2, notes((2.5, 0.1, "OK"))),
    ]
    tail = EndReport(notes((2.8, 5.0, "OK"), (3.1, 0.1, "OK")), None, 0, 0, (), None)
    pace = Pace(warmup_seconds=1.0, duration_seconds=2.0)
    point = measure(Scripted(windows, tail), pace=pace).point
    assert [window.calls for window in point.windows] == [1, 1, 2]
    assert point.calls == 3
    assert point.latency.maximum_seconds == 5.0  # due in time, answered long after
    assert sum(part.calls for part in point.parts) == 4


def test_all_processes_count():
    crew = Scripted([], processes=3, more=lambda n: report(n, calls(n, 10)))
    point = measure(crew).point
    assert point.throughput == 30.0
    assert point.client.processes == 3
    assert point.client.cpu_seconds == pytest.approx(3 * 3 * 0.5)
    assert point.verified == 21


def test_failed_calls_and_those_that_never_end_miss_the_bound():
    def window(n):
        return report(n, notes(*((n + 0.1 * k, 0.01 * k, "OK" if k else "UNAVAILABLE") for k in range(10))))

    ended = EndReport(notes(), None, 4, 0, (), None)
    measured = measure(Scripted([], ended, more=window), load=OPEN, bound=0.051)
    assert measured.due == 3 * 10 + 4
    assert measured.within_bound == 3 * 5
    assert measured.point.unfinished == 4
    assert measured.point.errors == {"UNAVAILABLE": 3}


def test_wrong_answers_are_counted_by_window_and_entry():
    crew = Scripted(
        (report(n, calls(n, 10), wrong=2 * n) for n in range(9)), EndReport(notes(), None, 0, 9, (6,), "relu: off")
    )
    seen = []
    point = measure(crew, seen=seen).point
    assert [window.wrong for window in seen] == [0, 2, 2, 2]
    assert (point.wrong, point.first_wrong, point.parts[0].wrong) == (6, "relu: off", 6)


def test_counters_are_read_around_what_is_measured():
    counts = Counting()
    measure(Scripted([], more=lambda n: report(n, calls(n, 10))), counts=counts)
    assert counts.asked == [(1, 4, 30)]
    counts = Counting()
    pace = Pace(warmup_seconds=2.0, duration_seconds=5.0)
    measure(Scripted([], more=lambda n: report(n, calls(n, 10))), pace=pace, counts=counts)
    assert (counts.marks, counts.asked) == (2, [(1, 2, 50)])


def test_three_windows_of_errors_are_a_server_that_is_gone():
    good = [report(n, calls(n, 10 + 5 * n)) for n in range(3)]
    bad = [
        report(n, calls(n, 5, code="UNAVAILABLE"), first_error="UNAVAILABLE: connection refused") for n in range(3, 6)
    ]
    with pytest.raises(TargetLostError, match="UNAVAILABLE: connection refused") as caught:
        measure(Scripted([*good, *bad]))
    assert [window.calls for window in caught.value.point.windows] == [10, 15, 20, 0, 0, 0]
    assert caught.value.point.errors == {"UNAVAILABLE": 15}


def test_refusals_are_a_result_and_no_loss():
    point = measure(Scripted([], more=lambda n: report(n, calls(n, 5, code="RESOURCE_EXHAUSTED")))).point
    assert point.latency is None
    assert point.errors == {"RESOURCE_EXHAUSTED": 50}


def test_a_target_that_never_answers_is_lost():
    ended = EndReport(notes(), None, 8, 0, (), None)
    with pytest.raises(TargetLostError, match="no answer"):
        measure(Scripted([], ended, more=lambda n: report(n, notes())))


def test_ctrl_c_keeps_what_there_is():
    windows = [report(0, calls(0, 10)), report(1, calls(1, 20)), KeyboardInterrupt()]
    crew = Scripted(windows)
    with pytest.raises(InterruptError) as caught:
        measure(crew)
    assert crew.asked_to_end
    assert caught.value.point.calls == 20
    with pytest.raises(InterruptError) as caught:
        measure(Scripted([KeyboardInterrupt()]))
    assert caught.value.point is None


def test_a_client_process_that_dies_is_told():
    with pytest.raises(ClientProcessError, match="process 0 died"):
        measure(Scripted([ClientProcessError("DIED", "client process 0 died, exit code -9")]))


def test_lateness_of_an_open_loop_is_the_clients():
    def window(n):
        return report(n, notes((n + 0.5, 0.02, "OK"), late=[0.015]))

    point = measure(Scripted([], more=window), load=OPEN).point
    assert point.client.send_lag_p99_seconds == pytest.approx(0.015, rel=1e-3)
    assert "sent calls late" in point.client.bottleneck
    assert measure(Scripted([], more=lambda n: report(n, calls(n, 5)))).point.client.send_lag_p99_seconds is None
