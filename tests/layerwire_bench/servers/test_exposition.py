"""Pages of Prometheus as numbers: what grew between two of them, and quantiles of histograms."""

from __future__ import annotations

import numpy as np
import pytest

from layerwire_bench.servers.exposition import Histogram, Samples

INF = float("inf")
# As Prometheus' histogram_quantile: even within a bucket, the first from 0, the last one's lower bound.
QUANTILES = {
    "middle of a bucket": ({1: 0, 2: 10, INF: 10}, 0.5, 1.5),
    "first bucket from 0": ({1: 4, 2: 8, INF: 8}, 0.25, 0.5),
    "end of a bucket": ({1: 4, 2: 8, INF: 8}, 0.5, 1.0),
    "empty ones between": ({1: 5, 2: 5, 5: 10, INF: 10}, 0.75, 3.5),
    "above the last bound": ({1: 1, 2: 2, INF: 10}, 0.99, 2.0),
    "all of one": ({1: 0, 2: 0, 5: 7, INF: 7}, 0.99, 2 + 3 * 0.99),
}


@pytest.mark.parametrize(("below", "share", "value"), QUANTILES.values(), ids=QUANTILES)
def test_quantiles_are_those_of_prometheus(below, share, value):
    assert Histogram(below[INF], 0.0, below).quantile(share) == pytest.approx(value)


def test_nothing_has_no_quantile():
    assert np.isnan(Histogram().quantile(0.5))
    assert np.isnan(Histogram(0, 0, {1: 0, INF: 0}).quantile(0.5))


def test_samples_new_since_then_count_whole():
    before, after = Samples.parse("a_total 3\n"), Samples.parse('a_total 5\nb_total{x="1"} 4\n')
    difference, anew = after.since(before, lambda name: True)
    assert (difference.sum("a_total"), difference.sum("b_total"), anew) == (2, 4, False)
