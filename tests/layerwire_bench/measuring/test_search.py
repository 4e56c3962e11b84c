"""The search for the highest rate, against servers that are a threshold."""

from hypothesis import given
from hypothesis import strategies as st

from layerwire_bench.measuring.search import MAX_TRIALS, PRECISION, Bisection


def search(bisection, limit):
    tried = []
    while (rate := bisection.next_rate()) is not None:
        tried.append(rate)
        bisection.record(rate, success=rate <= limit)
    return tried


@given(limit=st.floats(10, 1e6), off=st.floats(0.2, 5))
def test_it_closes_in_on_the_limit(limit, off):
    bisection = Bisection(limit * off)
    tried = search(bisection, limit)
    assert len(tried) <= MAX_TRIALS
    assert bisection.highest_kept <= limit < bisection.lowest_missed <= bisection.highest_kept * (1 + PRECISION)
    assert len(set(tried)) == len(tried)


@given(start=st.floats(1, 1e6))
def test_limits_are_not_left(start):
    bisection = Bisection(start, least=100, most=1000)
    tried = search(bisection, limit=1e9)
    assert bisection.highest_kept == 1000
    assert bisection.lowest_missed is None
    assert all(100 <= rate <= 1000 for rate in tried)


def test_nothing_may_be_kept():
    bisection = Bisection(500, least=100)
    assert search(bisection, limit=50)[-1] == 100
    assert bisection.highest_kept is None
    assert bisection.lowest_missed == 100


def test_a_rate_that_misses_after_a_higher_one_kept_counts_as_missed():
    bisection = Bisection(100)
    bisection.record(100, success=True)
    bisection.record(90, success=False)
    assert (bisection.highest_kept, bisection.lowest_missed) == (None, 90)
    assert bisection.next_rate() == 45
