"""A run on a terminal: width, what stands where, and that nothing in it steers the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from layerwire_bench.report import terminal
from layerwire_bench.report.summary import loads, summaries
from layerwire_bench.result import Load
from tests.layerwire_bench.report import results
from tests.layerwire_bench.report.model import LOCAL, point


def shown(run, width=100, **settings):
    out = io.StringIO()
    terminal.show(run, Console(file=out, width=width, highlight=False, **settings))
    return out.getvalue()


@pytest.mark.parametrize("name", results.EVERY)
@pytest.mark.parametrize("width", [60, 100, 200], ids=str)
def test_is_no_wider_than_a_hundred_columns_nor_than_the_terminal(name, width):
    lines = shown(results.EVERY[name](), width).splitlines()
    assert lines
    assert max(len(line.rstrip()) for line in lines) <= min(width, 100)


@pytest.mark.parametrize("name", ["sweep", "comparison-of-loads", "search", "mix"])
def test_every_load_has_its_row_with_whole_numbers(name):
    run = results.EVERY[name]()
    text = shown(run)
    found = summaries(run)
    for summary in found:
        assert f"{summary.throughput:,.0f}" in text
        assert f"{summary.load.size:,.0f}" in text
    assert len(loads(found)) > 1


def test_units_stand_in_the_heads():
    text = shown(results.sweep())
    heads = text[: text.index("──")].splitlines()
    assert heads[-3].split() == ["calls", "p50", "p90", "p99", "p99.9"]
    assert heads[-2].split() == ["callers", "per", "s", "ms", "ms", "ms", "ms", "errors", "wrong", "steady"]


def test_the_servers_phases_and_costs_stand_under_the_clients_latency():
    text = shown(results.sweep())
    assert text.index("Throughput and latency at the client") < text.index("Where the time went")
    for head in ("queue", "copy in", "kernel", "copy out", "rest", "µs CPU"):
        assert head in text[text.index("Where the time went") :]


def test_columns_that_tell_nothing_are_left_out():
    alone = results.run("sweep", "", [point(LOCAL, Load("closed", callers=count), 0, 1) for count in (1, 2)])
    text = shown(alone)
    assert "µs CPU" in text
    for head in ("queue", "kernel", "rest", "server", "Means per call"):
        assert head not in text


def test_the_answer_stands_last():
    assert shown(results.single()).splitlines()[-1].startswith("12,997 calls/s with 8 callers: p50 ")


def test_wrong_answers_cannot_be_missed():
    plainly = shown(results.broken(), no_color=True, force_terminal=True)
    assert "WRONG ANSWERS" in plainly.splitlines()[-4]
    assert "37 of 2,954 compared answers were wrong" in plainly.splitlines()[-3]
    colored = shown(results.broken(), force_terminal=True, color_system="standard")
    assert "\x1b[1;37;41m" in colored  # bold white on red
    assert "WRONG ANSWERS" not in shown(results.sweep())


def test_without_a_terminal_there_is_no_escape():
    assert "\x1b" not in shown(results.broken())


def test_names_neither_steer_the_terminal_nor_are_markup():
    text = shown(results.hostile())
    assert not {char for char in text if not char.isprintable()} - {"\n"}
    assert "[bold red]" in text
    assert r"\x1b[31m" in text.replace("\n", "")
