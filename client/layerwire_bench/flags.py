"""Every option of `layerwire bench`, defined once, and what they mean together.

It knows click, plans and how tensors are written; neither servers nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from layerwire.cli import parameters
from layerwire.cli.parameters import output_file
from layerwire.wire.dtypes import DTYPES
from layerwire_bench import operator_table
from layerwire_bench.plan import HOWS, LOCAL, How, Pace, TargetSpec, duration, loads
from layerwire_bench.result import Load, Mode
from layerwire_bench.sending import tensors

Value = TypeVar("Value")

DEFAULT_CONCURRENCY = "1:64:x2"
# A search must not stop when it likes what it sees.
_SEARCH_PACE = Pace(duration_seconds=4.0)
_COMPARE_PACE = Pace(warmup_seconds=0.5, duration_seconds=2.0)  # rounds, not windows, tell whether it is steady
_MAX_WINDOWS = 10_000


class Words(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # older clicks' has no []
    """What a function reads of text; its ValueError becomes click's."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """What is read; a default that isn't text stays."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _time(least: float = 1e-6, most: float = 86_400.0) -> Words:
    """5ms, 250us, 1.5s, as seconds."""

    def read(text: str) -> float:
        seconds = duration(text)
        if not least <= seconds <= most:
            raise ValueError(f"{text}: must be {least:g} to {most:g} seconds")
        return seconds

    return Words("time", read)


_TIME, _SHAPE = _time(), Words("shape", tensors.shape)
_TENSOR, _INPUT = Words("tensor", tensors.source), Words("shape", tensors.source_by_name)
_RATIO = click.FloatRange(min=0, max=10, min_open=True)


def _option(name: str, help: str, metavar: str | None = None, *names: str, **rest: Any) -> click.Option:  # noqa: A002  # click's word
    """An option, whose default --help shows."""
    return click.Option([f"--{name}", *names], help=help, metavar=metavar, **{"show_default": "default" in rest} | rest)


def options() -> list[click.Option]:
    """Those of all commands, for a command of its own each: click keeps state in them."""
    return [
        _option("samples", "Different inputs of each kind of call.", "N", type=click.IntRange(1, 1024),
                default=tensors.USUAL.samples),
        _option("max-message-bytes", "Largest message that the server takes.", "BYTES",
                type=click.IntRange(1 << 20, 2046 << 20), default=tensors.USUAL.max_message_bytes),
        _option("concurrency", "Closed loop: callers that each wait for their answer. 8; 1,4,16; 1:64:x2 doubles; "
                f"10:50:10 adds. Default: {DEFAULT_CONCURRENCY}.", "CALLERS"),
        _option("rate", "Open loop: calls per second, whatever became of those before; latency counts from the time "
                "a call was due. Spelled as --concurrency. With --slo the limits of the search, LOW:HIGH.", "CALLS/S"),
        _option("arrivals", "How calls of an open loop follow each other.",
                type=click.Choice(["poisson", "constant"]), default="poisson"),
        _option("slo", "Search for the highest rate at which --percentile of all calls are answered in this time.",
                "TIME", type=_TIME),
        _option("percentile", "Of --slo.", "PERCENT", type=click.FloatRange(min=1, max=100, max_open=True),
                default=99.0),
        _option("by", "How calls are made: by Layerwire's stream, by unary RPCs, by the Open Inference Protocol "
                "(Triton, MLServer, OVMS, Layerwire), or with torch in this process.",
                type=click.Choice(HOWS), default="stream"),
        _option("compare", "Two targets in turn, round by round: stream, unary, oip (at ADDRESS), HOST:PORT, "
                "HOW@HOST:PORT, or local. Tells the ratio of medians.", "A B", nargs=2),
        _option("rounds", "Of --compare.", "N", type=click.IntRange(1, 1000), default=5),
        _option("verify", "Which answers are checked: all, as many as cost 2% of the client's time, or none.",
                type=click.Choice(["all", "sample", "off"]), default="sample"),
        _option("seed", "Of the random tensors, their order, and Poisson arrivals.", "N",
                type=click.IntRange(0, 2**32 - 1), default=0),
        _option("warmup", "Before anything counts. Default: 1s; 500ms with --compare.", "TIME", type=_TIME),
        _option("window", "Of one look at the figures.", "TIME", type=_time(0.01, 60.0), default=1.0,
                show_default="1s"),
        _option("duration", "Measure exactly so long, instead of until three windows agree. Default with --compare 2s, "
                "with --slo 4s.", "TIME", type=_TIME),
        _option("tolerance", "By how much windows that agree may differ, in throughput and p50.", "RATIO",
                type=_RATIO, default=0.1),
        _option("max-windows", "Windows after which figures are given though they don't agree.", "N",
                type=click.IntRange(3, 10_000), default=10),
        _option("timeout", "Of each call.", "TIME", type=_TIME, default=10.0, show_default="10s"),
        _option("processes", "Client processes. Default: one, and more where one can't keep up.", "N",
                type=click.IntRange(1, 32)),
        _option("wait", "Longest wait for the server to be there.", "TIME", type=_TIME, default=5.0,
                show_default="5s"),
        _option("metrics", "The server's /metrics. Default: port 9464 of ADDRESS, if that is one.", "HOST:PORT|off"),
        _option("max-errors", "Share of calls that may fail before the exit status is 1.", "RATIO",
                type=click.FloatRange(0, 1), default=0.01),
        _option("json", "Everything that was found, as JSON; - for standard output.", "FILE", type=output_file),
        _option("csv", "A line a load, with perf_analyzer's columns; - for standard output.", "FILE",
                type=output_file),
        _option("html", "A page with plots, of one file.", "FILE", type=output_file),
    ]  # fmt: skip


def operator_options(function: str) -> list[click.Option]:
    """--shape and --dtype of the input, and the function's parameters, a tensor as a shape, name:NAME or a .npy file.

    Raises:
        ValueError: there is no such function.
    """
    return [
        _option("shape", "Shape of the input.", "INT[,INT...]", type=_SHAPE, required=True),
        _option("dtype", f"Of random tensors: {', '.join(DTYPES)}. Default: float32.", "DTYPE", type=parameters.dtype,
                default="float32", show_default=False),
        *(_tensor_option(one.name) if operator_table.is_tensor(one) else parameters.option(one)
          for one in operator_table.options_of(function)),
    ]  # fmt: skip


def _tensor_option(name: str) -> click.Option:
    forms = "A random tensor of this shape, weights of the server by name:NAME, or a .npy file."
    return _option(name.strip("_").replace("_", "-"), forms, "SHAPE|name:NAME|FILE", name, type=_TENSOR)


def program_options() -> list[click.Option]:
    """--rows, --shape and --version of a program."""
    return [
        _option("rows", "Rows where axis 0 is free. Default: 1.", "INT", type=click.IntRange(min=1)),
        _option("shape", "Shape of an input, or a .npy file with it. Again for the next input.", "NAME=SHAPE|FILE",
                "shapes", type=_INPUT, multiple=True),
        _option("version", "Version of the program. Default: the default one.", "INT", type=int),
    ]  # fmt: skip


def by_name() -> dict[str, click.Option]:
    """The options of all commands by their parameters' names."""
    return {str(option.name): option for option in options()}


@dataclass(frozen=True)
class Flags:
    """The options of all commands, checked against each other; `values` are those by name."""

    targets: tuple[TargetSpec, ...]
    loads: tuple[Load, ...]
    pace: Pace
    slo_seconds: float | None
    rate_limits: tuple[float | None, float | None]
    mode: Mode
    values: Mapping[str, Any]


def read(address: str | None, values: Mapping[str, Any]) -> Flags:
    """What the options mean together.

    Raises:
        click.UsageError: they don't go together, or one can't be read.
    """
    if values["concurrency"] is not None and values["rate"] is not None:
        raise click.UsageError("--concurrency is a closed loop, --rate an open one: give one of them")
    if values["slo"] is not None and values["concurrency"] is not None:
        raise click.UsageError("--slo searches for a rate; --concurrency doesn't go with it")
    if values["slo"] is not None and values["compare"]:
        raise click.UsageError("--slo searches one target; --compare doesn't go with it")
    outputs = [values[name] for name in ("json", "csv", "html") if values[name] is not None]
    if len(set(outputs)) < len(outputs):
        raise click.UsageError("--json, --csv and --html can't go to the same place")
    mode: Mode = "closed" if values["rate"] is None and values["slo"] is None else values["arrivals"]
    targets = _targets(address, values)
    return Flags(targets, _loads(mode, values), _pace(values), values["slo"], _limits(values), mode, values)


def _targets(address: str | None, values: Mapping[str, Any]) -> tuple[TargetSpec, ...]:
    how: How = values["by"]
    if not values["compare"]:
        if address is None:
            raise click.UsageError("ADDRESS is missing: HOST:PORT of a server, or local")
        return (_usage(TargetSpec.parse, address, how, None),)
    server = None if address in (None, LOCAL) else address
    both = tuple(_usage(TargetSpec.parse, text, how, server) for text in values["compare"])
    if both[0] == both[1]:
        raise click.UsageError(f"--compare: both targets are {both[0]}")
    if server is not None and not any(target.address == server for target in both):
        names = " nor ".join(map(str, both))
        raise click.UsageError(f"--compare: neither {names} is at ADDRESS {server}; leave it out")
    return both


def _loads(mode: Mode, values: Mapping[str, Any]) -> tuple[Load, ...]:
    if values["slo"] is not None:
        return ()
    text = values["rate"] if mode != "closed" else values["concurrency"] or DEFAULT_CONCURRENCY
    return _usage(loads, text, mode, "--concurrency" if mode == "closed" else "--rate")


def _limits(values: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The rates between which is searched."""
    if values["slo"] is None or values["rate"] is None:
        return None, None
    low, colon, high = values["rate"].partition(":")
    if not colon or ":" in high or "," in values["rate"]:
        raise click.UsageError(f"--rate {values['rate']}: with --slo it is LOW:HIGH")
    least, most = (_usage(loads, text, "poisson")[0].rate or 0.0 for text in (low, high))
    if least >= most:
        raise click.UsageError(f"--rate {values['rate']}: the lower limit must be below the upper one")
    return least, most


def _pace(values: Mapping[str, Any]) -> Pace:
    usual = _COMPARE_PACE if values["compare"] else _SEARCH_PACE if values["slo"] is not None else Pace()
    changes = {f"{name}_seconds": values[name] for name in ("warmup", "window", "duration") if values[name] is not None}
    pace = replace(usual, **changes, tolerance=values["tolerance"], max_windows=values["max_windows"])
    if pace.warmup_windows + (pace.duration_windows or 0) > _MAX_WINDOWS:
        raise click.UsageError(f"--warmup and --duration are more than {_MAX_WINDOWS:,} times --window")
    return pace


def _usage(make: Callable[..., Value], *args: Any) -> Value:
    try:
        return make(*args)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
