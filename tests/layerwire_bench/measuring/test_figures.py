"""Percentiles, and the parts of a mix."""

import base64

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from layerwire.calls import Requests
from layerwire_bench.calling.tally import CODES, Notes
from layerwire_bench.measuring.figures import Latencies, PointFigures
from layerwire_bench.workload import Entry, Sample, Workload

GENERATOR = np.random.default_rng(3)


@pytest.mark.parametrize(
    "seconds",
    [GENERATOR.lognormal(-7, 1, 20_000), GENERATOR.uniform(1e-6, 5.0, 5_000), np.full(100, 0.0123), np.array([3e-6])],
    ids=["lognormal", "microseconds to seconds", "all alike", "one"],
)
def test_percentiles_are_right_to_a_thousandth(seconds):
    found = Latencies()
    for part in np.array_split(seconds, 3):
        found.add(part)
    latency = found.latency()
    for percent, name in ((50, "p50"), (90, "p90"), (99, "p99"), (99.9, "p999")):
        rank = round(len(seconds) * percent / 100) - 1
        around = np.sort(seconds)[max(rank - 1, 0) : rank + 2]
        assert around.min() * 0.998 <= getattr(latency, f"{name}_seconds") <= around.max() * 1.002
    assert latency.mean_seconds == pytest.approx(seconds.mean())
    assert latency.standard_deviation_seconds == pytest.approx(seconds.std(), abs=1e-9)
    assert (latency.minimum_seconds, latency.maximum_seconds) == (seconds.min(), seconds.max())


def test_the_encoded_histogram_is_one_that_others_read():
    found = Latencies()
    found.add(np.array([0.001, 0.002, 0.003]))
    decoded = HdrHistogram.decode(found.base64())
    assert decoded.get_total_count() == 3
    assert decoded.get_value_at_percentile(100) == pytest.approx(3e6, rel=1e-3)
    assert base64.b64decode(found.base64())


def test_nothing_has_no_latency():
    found = Latencies()
    found.add(np.array([]))
    assert (found.latency(), found.base64()) == (None, None)


def workload():
    samples = [Sample(entry, Requests().relu(np.zeros(1, "float32")), None, 0, 0) for entry in (0, 1, 1)]
    return Workload((Entry("a", "a", 0.5), Entry("b", "b", 0.5)), tuple(samples), "")


def notes(*calls):
    due, seconds, samples, codes = zip(*calls, strict=True)
    return Notes(
        np.array(due, float), np.array(seconds, float), np.array([]), np.array(samples, np.uint16),
        np.array([CODES.index(code) for code in codes], np.uint8),
    )  # fmt: skip


def test_calls_are_parted_by_entry_and_status():
    gathered = PointFigures(workload(), bound_seconds=0.02)
    gathered.add(notes((0, 0.01, 0, "OK"), (0, 0.02, 1, "OK"), (0, 0.03, 2, "OK"), (0, 9, 2, "UNAVAILABLE")))
    gathered.add(notes((0, 9, 0, "UNAVAILABLE"), (0, 9, 0, "INTERNAL")))
    first, second = gathered.parts(2.0, [0, 5])
    assert (first.name, first.calls, first.throughput, first.errors) == ("a", 1, 0.5, {"UNAVAILABLE": 1, "INTERNAL": 1})
    assert (second.calls, second.errors, second.wrong) == (2, {"UNAVAILABLE": 1}, 5)
    assert list(gathered.errors().items()) == [("UNAVAILABLE", 2), ("INTERNAL", 1)]
    assert (gathered.count, gathered.within_bound, gathered.total.count) == (6, 2, 3)
