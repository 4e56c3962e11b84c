"""JSON that comes back as it was or not at all; CSV with perf_analyzer's columns."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest

from layerwire_bench.report.files import from_json, to_csv, to_json
from layerwire_bench.result import Load
from tests.layerwire_bench.report import results
from tests.layerwire_bench.report.model import LOCAL, STREAM, point

HONEST = sorted(set(results.EVERY) - {"hostile"})


@pytest.mark.parametrize("name", HONEST)
def test_json_comes_back_equal(name):
    run = results.EVERY[name]()
    assert from_json(to_json(run)) == run


def test_what_utf_8_cannot_hold_is_replaced_and_all_else_comes_back():
    text = to_json(results.hostile())
    assert to_json(from_json(text)) == text
    assert text.encode() == text.encode("utf-8", "strict")
    assert from_json(text).command == results.hostile().command.replace("\ud800", "?")


def test_json_has_the_fields_own_names():
    written = json.loads(to_json(results.sweep()))
    assert written["schema"] == 1
    assert written["points"][0]["latency"]["p99_seconds"] == results.sweep().points[0].latency.p99_seconds


def test_json_refuses_to_write_what_is_no_number():
    run = results.single()
    broken = replace(run, points=(replace(run.points[0], throughput=math.nan),))
    with pytest.raises(ValueError, match="nan"):
        to_json(broken)


def without(written):
    del written["points"][0]["seconds"]


REFUSED = {
    "another-schema": (lambda written: written.update(schema=2), "schema must be 1, got 2"),
    "no-schema": (lambda written: written.pop("schema"), "schema must be 1, got None"),
    "missing": (without, "seconds"),
    "unknown": (lambda written: written["points"][0].update(extra=1), "no others"),
    "words-for-a-number": (lambda written: written.update(seconds="1"), "seconds"),
    "fraction-for-a-count": (lambda written: written["points"][0].update(calls=1.5), "calls"),
    "another-kind": (lambda written: written.update(kind="guess"), "kind"),
    "nothing-for-a-number": (lambda written: written.update(seconds=None), "seconds"),
}


@pytest.mark.parametrize(("change", "said"), REFUSED.values(), ids=REFUSED)
def test_json_that_is_no_run_is_refused(change, said):
    written = json.loads(to_json(results.single()))
    change(written)
    with pytest.raises(ValueError, match=said):
        from_json(json.dumps(written))


@pytest.mark.parametrize("text", ["", "[]", "null", '{"schema": NaN}', '{"schema": 1}'], ids=repr)
def test_text_that_is_no_run_is_refused(text):
    with pytest.raises(ValueError):
        from_json(text)


PERF_ANALYZER = (
    "Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,Server Compute Infer,"
    "Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency"
)
PARTS = PERF_ANALYZER.split(",")[1:8]


def rows(run):
    return list(csv.DictReader(to_csv(run).splitlines()))


@pytest.mark.parametrize(
    ("name", "load"), [("sweep", "Concurrency"), ("rates", "Request Rate"), ("search", "Request Rate")]
)
def test_csv_starts_with_perf_analyzers_columns(name, load):
    assert to_csv(results.EVERY[name]()).startswith(f"{load},{PERF_ANALYZER},")


@pytest.mark.parametrize("name", HONEST)
def test_csv_has_a_row_a_point_by_rising_throughput(name):
    run = results.EVERY[name]()
    found = [float(row["Inferences/Second"]) for row in rows(run)]
    assert len(found) == len(run.points)
    assert found == sorted(found)


def test_csv_has_whole_microseconds_whose_parts_add_up():
    run = results.sweep()
    for row in rows(run):
        found = next(point for point in run.points if point.load.callers == int(row["Concurrency"]))
        assert int(row["p99 latency"]) == round(found.latency.p99_seconds * 1e6)
        assert int(row["Server Queue"]) == round(found.server.queue.mean_seconds * 1e6)
        assert int(row["Server Compute Infer"]) == round(found.server.kernel.mean_seconds * 1e6)
        assert sum(int(row[part]) for part in PARTS) == int(row["Avg latency"])


def test_csv_leaves_out_the_server_where_nobody_asked_it():
    run = results.run("sweep", "", [point(LOCAL, Load("closed", callers=1), 0, 1)])
    assert to_csv(run).startswith("Concurrency,Inferences/Second,Client Send,Client Recv,p50 latency,")


def test_csv_leaves_cells_empty_that_are_not_known():
    (row,) = rows(results.hopeless())
    assert (row["p50 latency"], row["Avg latency"], row["Errors"]) == ("", "", "400")
    local = next(row for row in rows(results.comparison()) if row["Target"] == LOCAL)
    assert (local["Server Queue"], local["Server Compute Infer"]) == ("", "")


def test_csv_tells_targets_and_rounds_and_what_went_wrong():
    assert [row["Round"] for row in rows(results.comparison()) if row["Target"] == STREAM] != [""] * 5
    assert sum(int(row["Wrong"]) for row in rows(results.broken())) == 37
    assert sum(int(row["Errors"]) for row in rows(results.broken())) == 563


def test_csv_quotes_names():
    run = results.single()
    name = 'oip@[::1]:8001, "a", b'
    (row,) = rows(replace(run, points=(replace(run.points[0], target=name),)))
    assert row["Target"] == name
