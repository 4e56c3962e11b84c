"""What a load test found: the one value that the table, JSON, CSV and the page are made of.

It knows numbers and words; neither how they were measured nor how they are shown. All times are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["closed", "constant", "poisson"]
Kind: TypeAlias = Literal["sweep", "search", "comparison"]


@dataclass(frozen=True)
class Load:
    """What was offered.

    Attributes:
        mode: "closed": callers that each wait for their answer; "constant" and "poisson": calls at a rate, whatever
            became of those before.
        callers: of a closed loop.
        rate: calls per second of an open loop.
    """

    mode: Mode
    callers: int | None = None
    rate: float | None = None

    @property
    def size(self) -> float:
        """Callers, or calls per second."""
        return float(self.callers if self.callers is not None else self.rate or 0.0)

    def __str__(self) -> str:
        if self.mode == "closed":
            return f"{self.callers} caller{'' if self.callers == 1 else 's'}"
        return f"{self.rate:,.0f}/s {self.mode}"


@dataclass(frozen=True)
class Latency:
    """Of successful calls, from the time that a call was due (open loop) or sent (closed loop) to its answer."""

    mean_seconds: float
    standard_deviation_seconds: float
    minimum_seconds: float
    p50_seconds: float
    p90_seconds: float
    p95_seconds: float
    p99_seconds: float
    p999_seconds: float
    maximum_seconds: float


@dataclass(frozen=True)
class Window:
    """A stretch of the timeline, whether it was measured or was warm-up.

    Attributes:
        start_seconds: since the run began.
        calls: answered with success within it.
        throughput: those per second.
        errors: calls that ended otherwise, by gRPC status name.
        wrong: answers that were not what they should be.
        measured: whether it counts for the point's figures.
    """

    start_seconds: float
    seconds: float
    calls: int
    throughput: float
    p50_seconds: float | None
    p99_seconds: float | None
    errors: dict[str, int]
    wrong: int
    measured: bool

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + self.seconds


@dataclass(frozen=True)
class Part:
    """One entry of a mix within a point."""

    name: str
    calls: int
    throughput: float
    errors: dict[str, int]
    wrong: int
    latency: Latency | None


@dataclass(frozen=True)
class Client:
    """What the load tester itself used, while it measured.

    Attributes:
        processes: client processes.
        cpu_seconds: processor time of all of them.
        busiest_cpu_ratio: the share of one core that the busiest of them used, 0 to 1 and a little.
        cpu_seconds_per_call: None without calls.
        lag_p99_seconds: how late the event loop came to a timer that was due.
        send_lag_p99_seconds: open loop: how late calls were sent. It is part of their latency.
        machine_busy_ratio: share of all this machine's cores that was in use by anybody; None where it can't be known.
        bottleneck: a sentence that says why the client, not the server, set the figures; None where it didn't.
    """

    processes: int
    cpu_seconds: float
    busiest_cpu_ratio: float
    cpu_seconds_per_call: float | None
    lag_p99_seconds: float
    send_lag_p99_seconds: float | None
    machine_busy_ratio: float | None
    bottleneck: str | None


@dataclass(frozen=True)
class Phase:
    """Mean and, where the server has a histogram of it, p50 and p99 of a phase of a call on the server.

    p50 and p99 are interpolated within the server's buckets, and so are estimates.
    """

    mean_seconds: float
    p50_seconds: float | None = None
    p99_seconds: float | None = None


@dataclass(frozen=True)
class Server:
    """What the server counted over the same windows.

    Attributes:
        source: where that was read: "/metrics of 127.0.0.1:9464", "ModelStatistics of m at 127.0.0.1:8001".
        calls: that it answered; more than the client's if others called too.
        queue, copy_in, kernel, copy_out: phases of a call, in this order, of what was sent alone; None where it doesn't
            tell. The queue's are counted by call. The others are a batch's: batches of an operator count alike, and
            operators by their calls. (ModelStatistics count a batch for each of its calls.)
        batch_calls, batch_rows: means over batches; None where it doesn't tell.
        batch_closed: batches by why no further call was taken in.
        rejected: calls and requests turned away, by reason.
        cpu_seconds: processor time by process, "gateway-0", "worker-0", ...; empty where it doesn't tell.
        note: a sentence on what to make of it, such as that others called at the same time; None for nothing.
    """

    source: str
    calls: float
    queue: Phase | None
    copy_in: Phase | None
    kernel: Phase | None
    copy_out: Phase | None
    batch_calls: float | None
    batch_rows: float | None
    batch_closed: dict[str, float] = field(default_factory=dict)
    rejected: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    note: str | None = None

    @property
    def total_cpu_seconds(self) -> float:
        """Of all its processes."""
        return sum(self.cpu_seconds.values())


@dataclass(frozen=True)
class Point:
    """One load on one target, measured.

    Attributes:
        target: as the user spelled it: "stream@127.0.0.1:50051", "local".
        load: what was offered.
        start_seconds: when measuring began, since the run began.
        seconds: how long it measured.
        steady: whether the last windows agreed within the tolerance.
        calls: answered with success while it measured.
        throughput: those per second.
        latency: None without a successful call.
        errors: calls that ended otherwise, by gRPC status name.
        first_error: what the first of them said.
        verified: answers that were compared with what they should be, those of the warm-up too.
        wrong: those that differed.
        first_wrong: how the first of them differed.
        unfinished: calls due while it measured that had no answer when waiting for them ended.
        windows: the timeline of this point, warm-up included.
        parts: by entry of the mix; one for a single operator or program.
        client: what the load tester used.
        server: what the server counted; None where that couldn't be read.
        round: of a comparison, from 1; else 0.
        unsent: calls of an open loop that were due while it measured and never sent, since too many were unanswered.
            They are in the latencies with the least that they could have taken: percentiles are lower bounds then.
        histogram: latencies in nanoseconds, as HdrHistogram encodes them in base64, for merging; None without calls.
    """

    target: str
    load: Load
    start_seconds: float
    seconds: float
    steady: bool
    calls: int
    throughput: float
    latency: Latency | None
    errors: dict[str, int]
    first_error: str | None
    verified: int
    wrong: int
    first_wrong: str | None
    unfinished: int
    windows: tuple[Window, ...]
    parts: tuple[Part, ...]
    client: Client
    server: Server | None
    round: int = 0
    histogram: str | None = None
    unsent: int = 0

    @property
    def failures(self) -> int:
        """Calls that ended otherwise than with success."""
        return sum(self.errors.values())


class Totals:
    """Sums over the points of what has some."""

    points: tuple[Point, ...]

    @property
    def calls(self) -> int:
        """Calls that were answered with success."""
        return sum(point.calls for point in self.points)

    @property
    def failures(self) -> int:
        """Calls that ended otherwise."""
        return sum(point.failures for point in self.points)

    @property
    def verified(self) -> int:
        """Answers that were compared with what they should be."""
        return sum(point.verified for point in self.points)

    @property
    def wrong(self) -> int:
        """Answers that were not what they should be."""
        return sum(point.wrong for point in self.points)


@dataclass(frozen=True)
class Search:
    """The search for the highest rate under a bound.

    Attributes:
        percentile: of latency that is bounded, 99.0.
        bound_seconds: the bound.
        best_rate: the highest rate, in calls per second, at which a measurement kept it; None if none did.
        first_failed_rate: the lowest rate above it that didn't; None if none failed.
        trials: what was tried, in order.
    """

    percentile: float
    bound_seconds: float
    best_rate: float | None
    first_failed_rate: float | None
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Trial:
    """One rate that was tried. `reason` says why it wasn't kept; None if it was."""

    point: int
    rate: float
    kept: bool
    reason: str | None


@dataclass(frozen=True)
class Ratio:
    """How a target compares with the first one at a load: ratio of medians over rounds.

    Attributes:
        target, baseline: as the user spelled them.
        load: the load of both.
        rounds: rounds that both finished.
        throughput: median of the target's throughput divided by the baseline's.
        throughput_least, throughput_most: least and most of the ratios of single rounds.
        p50, p50_least, p50_most: the same of p50 latency, None without calls.
        p99, p99_least, p99_most: the same of p99 latency.
    """

    target: str
    baseline: str
    load: Load
    rounds: int
    throughput: float
    throughput_least: float
    throughput_most: float
    p50: float | None
    p50_least: float | None
    p50_most: float | None
    p99: float | None
    p99_least: float | None
    p99_most: float | None


@dataclass(frozen=True)
class Machine:
    """Where the client ran. Versions by package name."""

    host: str
    cpu: str
    cores: int
    memory_bytes: int | None
    system: str
    versions: dict[str, str]


@dataclass(frozen=True)
class ServerInfo:
    """What a target said of itself, as words by name, in an order to be shown: version, devices, limits."""

    target: str
    facts: dict[str, str]


@dataclass(frozen=True)
class Run(Totals):
    """A whole load test.

    Attributes:
        command: the command line.
        started: ISO 8601 with time zone.
        seconds: how long it took.
        kind: a sweep of one target, a search, or a comparison of several.
        workload: what was sent, an entry a line: "max_pool2d (1,3,32,32) float32, kernel_size=2".
        verify: "all", "sample" or "off", and what answers were compared with: "sample, with torch 2.13.0".
        machine: where the client ran.
        servers: what the targets said of themselves.
        points: measured, in order.
        ratios: of a comparison.
        search: of a search.
        notes: sentences to be shown prominently: interrupted, the client was the bottleneck, metrics weren't read, ...
        interrupted: whether it was ended before it was done.
        failure: why it ended early, such as a server that went away; None if it didn't.
    """

    command: str
    started: str
    seconds: float
    kind: Kind
    workload: tuple[str, ...]
    verify: str
    machine: Machine
    servers: tuple[ServerInfo, ...]
    points: tuple[Point, ...]
    ratios: tuple[Ratio, ...] = ()
    search: Search | None = None
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    failure: str | None = None
    schema: int = field(default=1)
