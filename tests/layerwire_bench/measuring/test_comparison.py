"""Ratios of medians, and whose turn it is."""

from dataclasses import replace

import pytest

from layerwire_bench.measuring import comparison
from layerwire_bench.result import Client, Latency, Load, Point

LOAD = Load("closed", callers=8)


def point(target, number, throughput, p50=0.001, load=LOAD):
    latency = None if p50 is None else replace(Latency(*[0.001] * 9), p50_seconds=p50)
    client = Client(1, 0.1, 0.1, None, 0.0, None, None, None)
    return Point(
        target, load, 0.0, 1.0, True, 1, throughput, latency, {}, None, 0, 0, None, 0, (), (), client, None, number
    )


def test_turns_go_there_and_back():
    assert [comparison.turns(3, number) for number in (1, 2, 3)] == [[0, 1, 2], [2, 1, 0], [0, 1, 2]]


def test_ratio_of_medians_with_the_spread_of_rounds():
    rates = {1: (100, 300), 2: (110, 330), 3: (90, 450)}
    points = [
        point(name, number, rate) for number, both in rates.items() for name, rate in zip(("a", "b"), both, strict=True)
    ]
    [ratio] = comparison.ratios(points)
    assert (ratio.target, ratio.baseline, ratio.rounds) == ("b", "a", 3)
    assert ratio.throughput == pytest.approx(3.3)
    assert (ratio.throughput_least, ratio.throughput_most) == (pytest.approx(3.0), pytest.approx(5.0))
    assert ratio.p50 == pytest.approx(1.0)


def test_the_first_target_is_the_baseline_whoever_was_measured_first():
    points = [point("b", 2, 20), point("a", 2, 10), point("a", 1, 10), point("b", 1, 20)]
    assert [ratio.baseline for ratio in comparison.ratios(points)] == ["a"]


def test_a_round_that_one_target_missed_does_not_count():
    points = [point("a", 1, 10), point("b", 1, 20), point("a", 2, 1000)]
    [ratio] = comparison.ratios(points)
    assert (ratio.rounds, ratio.throughput) == (1, 2.0)


def test_without_answers_there_is_no_latency_to_compare():
    [ratio] = comparison.ratios([point("a", 1, 10, None), point("b", 1, 0, None)])
    assert (ratio.throughput, ratio.p50) == (0.0, None)


def test_a_baseline_without_throughput_has_no_ratio():
    assert comparison.ratios([point("a", 1, 0), point("b", 1, 10)]) == ()


def test_each_load_has_its_ratio():
    other = Load("closed", callers=16)
    points = [point("a", 1, 10), point("b", 1, 20), point("a", 1, 10, load=other), point("b", 1, 40, load=other)]
    assert [(ratio.load.callers, ratio.throughput) for ratio in comparison.ratios(points)] == [(8, 2.0), (16, 4.0)]
