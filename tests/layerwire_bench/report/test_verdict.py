"""What a run says in a sentence, and how points become the figures that are shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layerwire_bench.report import numbers, verdict
from layerwire_bench.report.summary import summaries
from layerwire_bench.result import Load, Phase
from tests.layerwire_bench.report import results
from tests.layerwire_bench.report.model import STREAM, UNARY, point

NUMBERS = {
    "nothing": (None, "–"),  # noqa: RUF001
    "zero": (0.0, "0"),
    "tiny": (0.00004, "0.000"),
    "small": (0.03456, "0.035"),
    "one": (1.0, "1.00"),
    "tens": (12.345, "12.3"),
    "hundreds": (123.45, "123"),
    "thousands": (12_345.6, "12,346"),
    "negative": (-1.234, "-1.23"),
}
DURATIONS = {
    "nothing": (None, "–"),  # noqa: RUF001
    "nanoseconds": (20e-9, "0.020 µs"),
    "microseconds": (312e-6, "312 µs"),
    "milliseconds": (1.2345e-3, "1.23 ms"),
    "seconds": (3.2, "3.20 s"),
}


@pytest.mark.parametrize(("value", "words"), NUMBERS.values(), ids=NUMBERS)
def test_number(value, words):
    assert numbers.number(value) == words


@pytest.mark.parametrize(("seconds", "words"), DURATIONS.values(), ids=DURATIONS)
def test_duration(seconds, words):
    assert numbers.duration(seconds) == words


def test_elapsed():
    assert [numbers.elapsed_text(seconds) for seconds in (4.2, 48.4, 60, 125)] == [
        "4.20 s",
        "48 s",
        "1 min 0 s",
        "2 min 5 s",
    ]


def with_figures(callers, throughput, p50, p99, **more):
    made = point(STREAM, Load("closed", callers=callers), 0, 1)
    latency = replace(made.latency, p50_seconds=p50, p99_seconds=p99)
    return replace(made, throughput=throughput, latency=latency, **more)


def test_a_sweep_names_its_best_what_nearly_does_and_the_lightest_load():
    points = [
        with_figures(1, 1_000.0, 1e-3, 2e-3),
        with_figures(8, 9_600.0, 1.5e-3, 3e-3),
        with_figures(64, 10_000.0, 6e-3, 12e-3),
    ]
    assert verdict.sentences(results.run("sweep", "", points)) == (
        "At most 10,000 calls/s, with 64 callers: p50 6.00 ms, p99 12.0 ms.",
        "96 % of that already with 8 callers: p50 1.50 ms, p99 3.00 ms.",
        "With 1 caller, 1,000 calls/s: p50 1.00 ms, p99 2.00 ms.",
    )


def test_fewer_callers_are_not_praised_where_latency_is_the_same():
    points = [with_figures(8, 9_600.0, 1e-3, 11e-3), with_figures(64, 10_000.0, 1e-3, 12e-3)]
    assert "already" not in " ".join(verdict.sentences(results.run("sweep", "", points)))


def test_rates_name_the_last_that_was_kept_up_with():
    said = verdict.sentences(results.rates())
    assert said[0].startswith("It kept up with 8,000 calls/s: p50 ")
    assert said[1].startswith("Offered 16,000 calls/s, it answered 13,")
    points = [replace(point, errors={"UNAVAILABLE": 1}) for point in results.rates().points]
    assert verdict.sentences(replace(results.rates(), points=tuple(points)))[0].startswith("It kept up with none")


def test_a_single_rate_that_was_not_kept_up_with_is_told_so():
    run = results.single()
    [only] = run.points
    for rate, words in ((only.throughput, ""), (only.throughput * 2, "It didn't keep up: ")):
        offered = replace(only, load=Load("poisson", rate=rate))
        [sentence] = verdict.sentences(replace(run, points=(offered,)))
        assert sentence.startswith(f"{words}{numbers.number(only.throughput)} calls/s")


def test_a_search_names_the_rate_and_its_bound():
    run = results.search()
    said = " ".join(verdict.sentences(run))
    assert said.startswith("12,338 calls/s is the highest rate that kept p99 under 5.00 ms: p50 ")
    assert said.endswith("The lowest rate above it that did not: 13,454 calls/s.")
    open_end = replace(run, search=replace(run.search, first_failed_rate=None))
    assert verdict.sentences(open_end)[-1] == "No higher rate was tried."
    hopeless = replace(run, search=replace(run.search, best_rate=None))
    assert verdict.sentences(hopeless) == (
        "No rate that was tried kept p99 under 5.00 ms; the lowest was 1,000 calls/s.",
    )


def test_a_comparison_names_ratios_and_their_range():
    run = results.comparison()
    unary = run.ratios[0]
    said = verdict.sentences(run)
    assert said[0].startswith(f"{STREAM} does ")
    assert said[1] == (
        f"{UNARY} has {unary.throughput:.3f} times ({unary.throughput_least:.3f} to {unary.throughput_most:.3f}) its "
        f"throughput and {unary.p99:.2f} times ({unary.p99_least:.2f} to {unary.p99_most:.2f}) its p99, over 5 rounds "
        "with 16 callers."
    )


def test_what_went_wrong_is_said():
    run = results.broken()
    assert verdict.wrong(run).startswith("37 of 2,954 compared answers were wrong. The first: output[0, 1, 3, 3]")
    assert verdict.errors(run).startswith("563 calls failed: 515 UNAVAILABLE, 48 DEADLINE_EXCEEDED. The first: UNAVAIL")
    assert verdict.early_end(run).startswith("Interrupted")
    assert verdict.early_end(results.hopeless()) == "Ended early: the server went away"
    assert verdict.sentences(results.hopeless()) == ("No call succeeded.",)
    assert verdict.sentences(results.nothing()) == ("Nothing was measured.",)
    fine = results.sweep()
    assert (verdict.wrong(fine), verdict.errors(fine), verdict.early_end(fine)) == (None, None, None)


def test_rounds_become_medians():
    rounds = [with_figures(4, float(rate), p50, 9e-3) for rate, p50 in ((100, 3e-3), (900, 1e-3), (200, 2e-3))]
    (summary,) = summaries(results.run("comparison", "", rounds))
    assert (summary.throughput, summary.latency.p50_seconds, len(summary.points)) == (200.0, 2e-3, 3)


def test_phases_and_the_rest_add_up_to_the_mean():
    (summary,) = summaries(results.single())
    assert list(summary.phases) == ["queue", "copy in", "kernel", "copy out"]
    assert sum(summary.phases.values()) + summary.rest_seconds == pytest.approx(summary.latency.mean_seconds)


def test_the_rest_is_never_negative_and_unknown_without_phases():
    found = point(STREAM, Load("closed", callers=1), 0, 1)
    longer = replace(found, server=replace(found.server, queue=Phase(1.0)))
    silent = replace(found, server=replace(found.server, queue=None, copy_in=None, kernel=None, copy_out=None))
    rests = [summaries(results.run("sweep", "", [each]))[0].rest_seconds for each in (longer, silent)]
    assert rests == [0.0, None]


def test_targets_keep_their_order_and_loads_rise():
    points = [point(target, Load("closed", callers=callers), 0, 1) for callers in (8, 2) for target in (UNARY, STREAM)]
    found = summaries(results.run("sweep", "", points))
    assert [(each.target, each.load.callers) for each in found] == [(UNARY, 2), (UNARY, 8), (STREAM, 2), (STREAM, 8)]
