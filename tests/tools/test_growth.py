"""Where a curve has a cliff, and the page that says so."""

import json

import pytest
from tools.growth.__main__ import write_page
from tools.growth.curve import Growth, Point, cliffs, from_best

CALLERS = Growth("callers", "relu", "callers", "calls/s", lambda _: 1.0, lambda ratio: ratio, (1.0, 2.0, 4.0, 8.0))


def curve(*points):
    return [Point(1 << index, rate, p50) for index, (rate, p50) in enumerate(points)]


@pytest.mark.parametrize(
    "points",
    [
        curve((100, 0.01), (180, 0.011), (180, 0.022), (175, 0.045)),  # full, and latency grows as callers do
        curve((100, 0.01), (90, 0.02), (80, 0.05), (75, 0.1)),  # noise
    ],
    ids=["saturation", "noise"],
)
def test_what_growth_explains_is_no_cliff(points):
    assert cliffs(CALLERS, points) == []
    assert from_best(CALLERS, points) is None


def test_a_fall_of_throughput_is_a_cliff():
    (sentence,) = cliffs(CALLERS, curve((100, 0.01), (180, 0.02), (90, 0.04)))
    assert sentence == "from 2 to 4 callers, throughput fell from 180 to 90 calls/s, where 120 is explained"


def test_a_leap_of_latency_is_a_cliff():
    (sentence,) = cliffs(CALLERS, curve((100, 0.01), (100, 0.02), (100, 0.2)))
    assert sentence == "from 2 to 4 callers, p50 rose from 20 to 200 ms, where 60 ms is explained"


def test_a_fall_by_small_steps_is_told_from_the_best():
    points = curve((180, 0.01), (150, 0.02), (125, 0.04), (100, 0.08))
    assert cliffs(CALLERS, points) == []
    assert "from 180 to 100" in from_best(CALLERS, points)


def test_the_page_has_picture_table_and_words(tmp_path):
    points = [[1.0, 100.0, 0.01], [2.0, 180.0, 0.02], [4.0, 60.0, 0.04]]
    write_page(tmp_path, json.loads(json.dumps({"callers": {"head": "Measured.", "points": points}})))
    text = (tmp_path / "README.md").read_text()
    assert "A cliff: from 2 to 4 callers" in text
    assert "| 4 | 60 | 40 |" in text
    assert (tmp_path / "callers.png").read_bytes().startswith(b"\x89PNG")
