"""When the calls of open loops are due."""

from itertools import islice

import numpy as np
import pytest

from layerwire_bench.calling import loops


@pytest.mark.parametrize("processes", [1, 3])
def test_constant_arrivals_of_all_processes_are_evenly_spaced(processes):
    due = sorted(
        time for process in range(processes) for time in islice(loops.constant_arrivals(50.0, process, processes), 60)
    )
    assert np.allclose(np.diff(due[: 60 * processes]), 0.02)
    assert due[0] == 0.0


@pytest.mark.parametrize("processes", [1, 4])
def test_poisson_arrivals_of_all_processes_add_up_to_the_rate(processes):
    count = 40_000 // processes
    streams = [
        list(islice(loops.poisson_arrivals(200.0, process, processes, seed=7), count)) for process in range(processes)
    ]
    end = min(stream[-1] for stream in streams)
    due = np.sort(np.concatenate(streams))
    gaps = np.diff(due[due < end])
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.03)  # as an exponential's
    assert np.quantile(gaps, 0.5) == pytest.approx(np.log(2) / 200, rel=0.04)


def test_poisson_arrivals_are_the_seeds():
    def first(seed, process=0):
        return list(islice(loops.poisson_arrivals(10.0, process, 2, seed), 5))

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert first(1) != first(1, process=1)
