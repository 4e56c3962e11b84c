"""A run in the forms that programs read: JSON and back, and CSV.

It knows what a run is made of by its dataclasses, whose docstrings say what each field means, and perf_analyzer's
columns; nothing of how a file is kept.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import TypeAlias

from layerwire_bench.report.summary import PERCENTILES, PHASES
from layerwire_bench.result import Point, Run

SCHEMA = next(field.default for field in fields(Run) if field.name == "schema")


def to_json(run: Run) -> str:
    """The whole run: every field of layerwire_bench.result under its own name; times in seconds. To be kept as UTF-8.

    Characters that UTF-8 has no form for, as in a command line of other bytes, become question marks.

    Raises:
        ValueError: a number that JSON has no word for, such as NaN.
    """
    text = json.dumps(asdict(run), indent=1, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode() + "\n"


def from_json(text: str) -> Run:
    """The run that `to_json` wrote, equal to it. Needs pydantic.

    Raises:
        ValueError: not such JSON, another schema, a field that is missing, unknown or of another type.
    """
    from pydantic import TypeAdapter

    values = json.loads(text, parse_constant=_refuse)
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"run: schema must be {SCHEMA}, got {schema!r}")
    run = TypeAdapter(Run).validate_json(text, strict=True)
    if json.loads(to_json(run)) != values:  # pydantic passes over what it doesn't know
        raise ValueError("run: fields must be those of schema 1, all of them and no others")
    return run


def _refuse(constant: str) -> float:
    raise ValueError(f"run: numbers must be finite, got {constant}")


CsvCell: TypeAlias = str | int | float | None
CsvColumns: TypeAlias = dict[str, Callable[[Point], CsvCell]]


def to_csv(run: Run) -> str:
    """A run with the columns of perf_analyzer, so that what reads its files reads these; lines end in newlines.

    As there: a row a measurement, by rising throughput; latencies and phases in whole microseconds, phases as means
    over calls; an inference is a call. The client doesn't time its sending and receiving by themselves: they are 0, and
    its and the network's part of the mean latency is in "Network+Server Send/Recv", so that the seven parts add up to
    the mean. Columns of the server are left out where no measurement has them, and a cell is empty where it isn't
    known. The columns from "Avg latency" on are additional.
    """
    open_loop = any(point.load.rate is not None for point in run.points)
    load = _RATE if open_loop else _CONCURRENCY
    server = _SERVER if any(point.server is not None for point in run.points) else {}
    columns = load | _CLIENT | server | _RECEIVE | _PERCENTILES | _MORE
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for point in sorted(run.points, key=lambda point: point.throughput):
        writer.writerow(value(point) for value in columns.values())
    return text.getvalue()


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


def _latency(field: str) -> Callable[[Point], CsvCell]:
    return lambda point: _microseconds(getattr(point.latency, field, None))


def _phase(field: str) -> Callable[[Point], int | None]:
    return lambda point: _microseconds(getattr(getattr(point.server, field, None), "mean_seconds", None))


def _rest(point: Point) -> int | None:
    """Of two measurements that can differ a little, hence at least 0. In whole numbers, so that the parts add up."""
    if point.latency is None:
        return None
    phases = sum(_phase(field)(point) or 0 for _, field in PHASES)
    return max(round(point.latency.mean_seconds * 1e6) - phases, 0)


_CONCURRENCY: CsvColumns = {"Concurrency": lambda point: point.load.callers}
_RATE: CsvColumns = {"Request Rate": lambda point: point.load.rate}
_CLIENT: CsvColumns = {"Inferences/Second": lambda point: round(point.throughput, 3), "Client Send": lambda _: 0}
_SERVER: CsvColumns = {
    "Network+Server Send/Recv": _rest,
    "Server Queue": _phase("queue"),
    "Server Compute Input": _phase("copy_in"),
    "Server Compute Infer": _phase("kernel"),
    "Server Compute Output": _phase("copy_out"),
}
_RECEIVE: CsvColumns = {"Client Recv": lambda _: 0}
_PERCENTILES: CsvColumns = {f"{name} latency": _latency(field) for name, field in PERCENTILES if name != "p99.9"}
_MORE: CsvColumns = {
    "Avg latency": _latency("mean_seconds"),
    "p99.9 latency": _latency("p999_seconds"),
    "Calls": lambda point: point.calls,
    "Errors": lambda point: point.failures,
    "Wrong": lambda point: point.wrong,
    "Steady": lambda point: int(point.steady),
    "Target": lambda point: point.target,
    "Round": lambda point: point.round or None,
}
