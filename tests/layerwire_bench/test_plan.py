"""What the command line's words mean: loads, times, targets, and which options go together."""

import click
import pytest

from layerwire_bench import flags
from layerwire_bench.plan import Pace, TargetSpec, duration, loads

LOADS = {
    "8": [8],
    "1,4,16": [1, 4, 16],
    "1:4": [1, 2, 3, 4],
    "1:64:x2": [1, 2, 4, 8, 16, 32, 64],
    "1:65:x2": [1, 2, 4, 8, 16, 32, 64],
    "10:50:10": [10, 20, 30, 40, 50],
    "1,8:16:x2": [1, 8, 16],
    "5:5": [5],
}
BAD_LOADS = {
    "0": "above 0",
    "-1": "above 0",
    "x": "no number",
    "": "nothing is no number",
    "1:": "nothing is no number",
    "4:1": "below the start",
    "1:8:x1": "a factor must be above 1",
    "1:8:0": "above 0",
    "1:2:3:4": "START:END",
    "1:1000": "more than 100",
    "1.5": "whole numbers",
    "70000": "whole numbers",
    "nan": "above 0",
    "inf": "above 0",
}


@pytest.mark.parametrize("text", LOADS)
def test_loads_of_callers(text):
    assert [load.callers for load in loads(text, "closed")] == LOADS[text]


@pytest.mark.parametrize("text", BAD_LOADS, ids=lambda text: text or "empty")
def test_bad_loads_are_refused_in_words(text):
    with pytest.raises(ValueError) as caught:
        loads(text, "closed")
    assert BAD_LOADS[text] in str(caught.value)


def test_rates_may_be_fractions():
    assert [load.rate for load in loads("0.5:2:x2", "poisson")] == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "seconds"), [("5ms", 0.005), ("250us", 0.00025), ("1.5s", 1.5), ("2", 2.0), ("2m", 120.0), (" 1 s ", 1.0)]
)
def test_times(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "0ms", "-1s", "5h", "ms", "1e3", "nan"])
def test_bad_times_are_refused(text):
    with pytest.raises(ValueError, match="must be a time"):
        duration(text)


TARGETS = {
    "stream": TargetSpec("stream", "here:1"),
    "unary": TargetSpec("unary", "here:1"),
    "oip": TargetSpec("oip", "here:1"),
    "local": TargetSpec("local"),
    "there:2": TargetSpec("unary", "there:2"),
    "oip@there:2": TargetSpec("oip", "there:2"),
}


@pytest.mark.parametrize("text", TARGETS)
def test_targets(text):
    assert TargetSpec.parse(text, "unary", "here:1") == TARGETS[text]


@pytest.mark.parametrize("text", ["http@there:2", "local@there:2", "stream@"])
def test_bad_targets_are_refused(text):
    with pytest.raises(ValueError, match="must be one of"):
        TargetSpec.parse(text, "stream", "here:1")


def test_a_way_needs_a_server():
    with pytest.raises(ValueError, match="which server"):
        TargetSpec.parse("unary", "stream", None)


def test_windows_are_whole():
    pace = Pace(warmup_seconds=0.3, window_seconds=0.1, duration_seconds=0.25)
    assert (pace.warmup_windows, pace.duration_windows) == (3, 3)


def given(**changes):
    command = click.Command("x", params=flags.options())
    values = command.make_context("x", [], resilient_parsing=False).params
    return values | changes


TOGETHER = {
    "a closed and an open loop": ({"concurrency": "1", "rate": "1"}, "give one of them"),
    "a search of callers": ({"concurrency": "1", "slo": 0.005}, "doesn't go with it"),
    "a search of two targets": ({"compare": ("stream", "unary"), "slo": 0.005}, "doesn't go with it"),
    "the same target twice": ({"compare": ("stream", "stream")}, "both targets"),
    "an address that isn't compared": ({"compare": ("a:1", "b:1")}, "neither"),
    "two files on standard output": ({"json": "-", "csv": "-"}, "same place"),
    "limits of a search without a colon": ({"slo": 0.005, "rate": "100"}, "LOW:HIGH"),
    "limits of a search the wrong way round": ({"slo": 0.005, "rate": "100:10"}, "below the upper"),
    "the same file twice": ({"json": "x", "html": "x"}, "same place"),
    "a window that is a moment": ({"window": 0.01, "duration": 200.0}, "times --window"),
    "no rate": ({"rate": "none"}, "no number"),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_what_does_not_go_together_is_a_usage_error(name):
    changes, words = TOGETHER[name]
    with pytest.raises(click.UsageError) as caught:
        flags.read("here:1", given(**changes))
    assert words in caught.value.message


def test_without_words_there_is_a_sweep_of_callers():
    read = flags.read("here:1", given())
    assert [load.callers for load in read.loads] == [1, 2, 4, 8, 16, 32, 64]
    assert read.targets == (TargetSpec("stream", "here:1"),)
    assert read.pace == Pace()


def test_a_search_has_limits_of_its_rate():
    read = flags.read("here:1", given(slo=0.005, rate="100:1000", arrivals="constant"))
    assert (read.loads, read.rate_limits, read.mode) == ((), (100.0, 1000.0), "constant")


def test_a_comparison_measures_for_a_time():
    read = flags.read("here:1", given(compare=("stream", "local")))
    assert read.pace.duration_seconds == 2.0
    assert read.targets == (TargetSpec("stream", "here:1"), TargetSpec("local"))
