"""What `layerwire bench` can be told beside what to send: one table of options, and their meaning together.

It knows click and plans; neither operators nor servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from layerwire.cli.parameters import output_file
from layerwire_bench.plan import HOWS, LOCAL, How, Pace, TargetSpec, duration, loads
from layerwire_bench.result import Load, Mode

Value = TypeVar("Value")

DEFAULT_CONCURRENCY = "1:64:x2"
# A search must not stop when it likes what it sees.
_SEARCH_PACE = Pace(duration_seconds=4.0)
_COMPARE_PACE = Pace(warmup_seconds=0.5, duration_seconds=2.0)  # rounds, not windows, tell whether it is steady


class Duration(click.ParamType):  # type: ignore[type-arg]  # older clicks' has no []
    """5ms, 250us, 1.5s.

    Args:
        least, most: bounds, in seconds.
    """

    name = "time"

    def __init__(self, least: float = 1e-6, most: float = 86_400.0) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        if isinstance(value, float):
            return value
        try:
            seconds = duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not self._least <= seconds <= self._most:
            self.fail(f"{value}: must be {self._least:g} to {self._most:g} seconds", param, ctx)
        return seconds


_TIME = Duration()
_WINDOW = Duration(0.01, 60.0)
_MAX_WINDOWS = 10_000
_RATIO = click.FloatRange(min=0, max=10, min_open=True)


def _option(name: str, help: str, metavar: str | None = None, **rest: Any) -> click.Option:  # noqa: A002  # click's word
    return click.Option([f"--{name}"], help=help, metavar=metavar, **rest)


def options() -> list[click.Option]:
    """All of them, for a command of its own each: click keeps state in them."""
    return [
        _option(
            "concurrency", "Closed loop: callers that each wait for their answer. 8; 1,4,16; 1:64:x2 doubles; 10:50:10 "
            f"adds. Default: {DEFAULT_CONCURRENCY}.", "CALLERS",
        ),
        _option("rate", "Open loop: calls per second, whatever became of those before; latency counts from the time "
                "a call was due. Spelled as --concurrency. With --slo the limits of the search, LOW:HIGH.", "CALLS/S"),
        _option("arrivals", "How calls of an open loop follow each other.",
                type=click.Choice(["poisson", "constant"]), default="poisson", show_default=True),
        _option("slo", "Search for the highest rate at which --percentile of all calls are answered in this time.",
                "TIME", type=_TIME),
        _option("percentile", "Of --slo.", "PERCENT", type=click.FloatRange(min=1, max=100, max_open=True),
                default=99.0, show_default=True),
        _option("by", "How calls are made: by Layerwire's stream, by unary RPCs, by the Open Inference Protocol "
                "(Triton, MLServer, OVMS, Layerwire), or with torch in this process.",
                type=click.Choice(HOWS), default="stream", show_default=True),
        _option("compare", "Two targets in turn, round by round: stream, unary, oip (at ADDRESS), HOST:PORT, "
                "HOW@HOST:PORT, or local. Tells the ratio of medians.", "A B", nargs=2),
        _option("rounds", "Of --compare.", "N", type=click.IntRange(1, 1000), default=5, show_default=True),
        _option("verify", "Which answers are checked: all, as many as cost 2% of the client's time, or none.",
                type=click.Choice(["all", "sample", "off"]), default="sample", show_default=True),
        _option("seed", "Of the random tensors, their order, and Poisson arrivals.", "N",
                type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
        _option("warmup", "Before anything counts. Default: 1s; 500ms with --compare.", "TIME", type=_TIME),
        _option("window", "Of one look at the figures.", "TIME", type=_WINDOW, default=1.0, show_default="1s"),
        _option("duration", "Measure exactly so long, instead of until three windows agree. Default with --compare 2s, "
                "with --slo 4s.", "TIME", type=_TIME),
        _option("tolerance", "By how much windows that agree may differ, in throughput and p50.", "RATIO",
                type=_RATIO, default=0.1, show_default=True),
        _option("max-windows", "Windows after which figures are given though they don't agree.", "N",
                type=click.IntRange(3, 10_000), default=10, show_default=True),
        _option("timeout", "Of each call.", "TIME", type=_TIME, default=10.0, show_default="10s"),
        _option("processes", "Client processes. Default: one, and more where one can't keep up.", "N",
                type=click.IntRange(1, 32)),
        _option("wait", "Longest wait for the server to be there.", "TIME", type=_TIME, default=5.0,
                show_default="5s"),
        _option("metrics", "The server's /metrics. Default: port 9464 of ADDRESS, if that is one.", "HOST:PORT|off"),
        _option("max-errors", "Share of calls that may fail before the exit status is 1.", "RATIO",
                type=click.FloatRange(0, 1), default=0.01, show_default=True),
        _option("json", "Everything that was found, as JSON; - for standard output.", "FILE", type=output_file),
        _option("csv", "A line a load, with perf_analyzer's columns; - for standard output.", "FILE",
                type=output_file),
        _option("html", "A page with plots, of one file.", "FILE", type=output_file),
    ]  # fmt: skip


def by_name() -> dict[str, click.Option]:
    """The options by their parameters' names."""
    return {str(option.name): option for option in options()}


@dataclass(frozen=True)
class Flags:
    """The options, checked against each other."""

    targets: tuple[TargetSpec, ...]
    loads: tuple[Load, ...]
    pace: Pace
    slo_seconds: float | None
    rate_limits: tuple[float | None, float | None]
    mode: Mode
    given: Mapping[str, Any]


def read(address: str | None, given: Mapping[str, Any]) -> Flags:
    """What the options mean together.

    Raises:
        click.UsageError: they don't go together, or one can't be read.
    """
    if sum(given[name] is not None for name in ("concurrency", "rate")) > 1:
        raise click.UsageError("--concurrency is a closed loop, --rate an open one: give one of them")
    if given["slo"] is not None and given["concurrency"] is not None:
        raise click.UsageError("--slo searches for a rate; --concurrency doesn't go with it")
    if given["slo"] is not None and given["compare"]:
        raise click.UsageError("--slo searches one target; --compare doesn't go with it")
    outputs = [given[name] for name in ("json", "csv", "html") if given[name] is not None]
    if len(set(outputs)) < len(outputs):
        raise click.UsageError("--json, --csv and --html can't go to the same place")
    mode: Mode = "closed" if given["rate"] is None and given["slo"] is None else given["arrivals"]
    return Flags(_targets(address, given), _loads(mode, given), _pace(given), given["slo"], _limits(given), mode, given)


def _targets(address: str | None, given: Mapping[str, Any]) -> tuple[TargetSpec, ...]:
    how: How = given["by"]
    if not given["compare"]:
        if address is None:
            raise click.UsageError("ADDRESS is missing: HOST:PORT of a server, or local")
        return (_usage(TargetSpec.parse, address, how, None),)
    known = None if address in (None, LOCAL) else address
    found = tuple(_usage(TargetSpec.parse, text, how, known) for text in given["compare"])
    if found[0] == found[1]:
        raise click.UsageError(f"--compare: both targets are {found[0]}")
    if known is not None and not any(target.address == known for target in found):
        raise click.UsageError(
            f"--compare: neither {' nor '.join(map(str, found))} is at ADDRESS {known}; leave it out"
        )
    return found


def _loads(mode: Mode, given: Mapping[str, Any]) -> tuple[Load, ...]:
    if given["slo"] is not None:
        return ()
    text = given["rate"] if mode != "closed" else given["concurrency"] or DEFAULT_CONCURRENCY
    return _usage(loads, text, mode, "--concurrency" if mode == "closed" else "--rate")


def _limits(given: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The rates between which is searched."""
    if given["slo"] is None or given["rate"] is None:
        return None, None
    low, colon, high = given["rate"].partition(":")
    if not colon or ":" in high or "," in given["rate"]:
        raise click.UsageError(f"--rate {given['rate']}: with --slo it is LOW:HIGH")
    ends = [_usage(loads, text, "poisson")[0].rate for text in (low, high)]
    assert ends[0] is not None
    assert ends[1] is not None
    if ends[0] >= ends[1]:
        raise click.UsageError(f"--rate {given['rate']}: the lower limit must be below the upper one")
    return ends[0], ends[1]


def _pace(given: Mapping[str, Any]) -> Pace:
    pace = _COMPARE_PACE if given["compare"] else _SEARCH_PACE if given["slo"] is not None else Pace()
    changes = {f"{name}_seconds": given[name] for name in ("warmup", "window", "duration") if given[name] is not None}
    found = replace(pace, **changes, tolerance=given["tolerance"], max_windows=given["max_windows"])
    if found.warmup_windows + (found.duration_windows or 0) > _MAX_WINDOWS:
        raise click.UsageError(f"--warmup and --duration are more than {_MAX_WINDOWS:,} times --window")
    return found


def _usage(make: Callable[..., Value], *args: Any) -> Value:
    try:
        return make(*args)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
