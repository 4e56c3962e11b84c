"""The table of all metrics, and their accumulation within one process: plain Python, cheap enough for every call.

It knows neither Prometheus nor other processes; exposition.py merges the snapshots of all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

# 10 us to 50 s in steps of 1, 2, 5: a relu takes tens of microseconds, a hung device tens of seconds.
SECONDS = tuple(round(step * 10.0**power, 6) for power in range(-5, 2) for step in (1, 2, 5))
COUNTS = tuple(float(2**power) for power in range(15))  # 1 to 16384


class Metric(NamedTuple):
    """A metric as the world sees it. Label values come from fixed sets only, never from a client."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: dict[str, Metric] = {
    # of calls, by workers
    "layerwire_calls_total": Metric("counter", "Calls answered, by status.", ("operator", "code")),
    "layerwire_call_seconds": Metric("histogram", "From a call's arrival to its answer.", ("operator",), SECONDS),
    "layerwire_queue_seconds": Metric("histogram", "From a call's arrival to its launch.", ("operator",), SECONDS),
    "layerwire_copy_in_seconds": Metric("histogram", "Joining a batch, to the device.", ("operator",), SECONDS),
    "layerwire_kernel_seconds": Metric("histogram", "Kernel of a batch.", ("operator",), SECONDS),
    "layerwire_copy_out_seconds": Metric(
        "histogram", "Parting a batch's answers, from the device.", ("operator",), SECONDS
    ),
    "layerwire_batch_calls": Metric("histogram", "Calls of a batch.", ("operator",), COUNTS),
    "layerwire_batch_rows": Metric("histogram", "Rows of a batch.", ("operator",), COUNTS),
    "layerwire_batch_closed_total": Metric("counter", "Batches, by why no further call was taken in.", ("reason",)),
    "layerwire_rejected_total": Metric(
        "counter", "Calls and requests turned away, by what was full or over a limit.", ("reason",)
    ),
    "layerwire_calls_in_flight": Metric("gauge", "Calls accepted and not answered.", ("worker",)),
    "layerwire_queue_calls": Metric("gauge", "Calls waiting.", ("worker",)),
    "layerwire_queue_bytes": Metric("gauge", "Bytes of calls waiting.", ("worker",)),
    "layerwire_lanes": Metric("gauge", "Lanes with calls waiting.", ("worker",)),
    "layerwire_weights_bytes": Metric("gauge", "Bytes of weights on the device.", ("worker",)),
    "layerwire_device_memory_bytes": Metric("gauge", "Memory of a worker's device.", ("worker", "kind")),
    "layerwire_kernel_trials_total": Metric(
        "counter",
        "Kernels tried against eager: fastest, slower, wrong (another answer) or failed.",
        ("operator", "kernel", "result"),
    ),
    "layerwire_kernel_batches_total": Metric(
        "counter", "Batches run by another kernel than eager.", ("operator", "kernel")
    ),
    "layerwire_kernel_choices": Metric(
        "gauge",
        "Operators and programs, by sizes of batches, that a kernel was chosen for.",
        ("worker", "operator", "kernel"),
    ),
    # of messages, by gateways
    "layerwire_requests_total": Metric("counter", "RPCs ended, by status; a stream counts once.", ("method", "code")),
    "layerwire_request_seconds": Metric("histogram", "From a unary request to its answer.", ("method",), SECONDS),
    "layerwire_received_bytes_total": Metric("counter", "Bytes of messages received.", ("method",)),
    "layerwire_sent_bytes_total": Metric("counter", "Bytes of messages sent.", ("method",)),
    "layerwire_copied_bytes_total": Metric(
        "counter", "Bytes of messages of 256 KiB and more that were copied, by what for; gRPC's own too.", ("place",)
    ),
    "layerwire_bytes_in_flight": Metric("gauge", "Bytes of requests and answers held.", ("gateway",)),
    "layerwire_requests_in_flight": Metric("gauge", "Unary requests not answered.", ("gateway",)),
    "layerwire_streams": Metric("gauge", "Streams open.", ("gateway",)),
    "layerwire_retried_frames_total": Metric("counter", "Frames sent again because their worker died."),
    "layerwire_quarantined_requests_total": Metric("counter", "Calls given up after two deaths of workers."),
    "layerwire_dropped_answers_total": Metric("counter", "Answers that came late or twice."),
    "layerwire_canary_total": Metric("counter", "Canary calls, by how they went.", ("worker", "result")),
    # of processes, by the supervisor
    "layerwire_worker_up": Metric("gauge", "1 while the worker is up, 0 while it starts.", ("worker", "device")),
    "layerwire_worker_restarts_total": Metric("counter", "Workers replaced.", ("worker",)),
    "layerwire_gateway_restarts_total": Metric("counter", "Gateways replaced.", ("gateway",)),
    "layerwire_process_resident_memory_bytes": Metric("gauge", "Resident memory.", ("process",)),
    "layerwire_process_cpu_seconds_total": Metric("counter", "Processor time.", ("process",)),
    "layerwire_process_open_fds": Metric("gauge", "Open file descriptors.", ("process",)),
    "layerwire_build_info": Metric("gauge", "Always 1.", ("version", "torch_version", "python_version")),
}

# What `reason` of layerwire_rejected_total can be: for each process that turns calls away, what was full or over a
# limit. The README has them from here.
REJECTIONS: dict[str, dict[str, str]] = {
    "gateway": {
        "message_bytes": "a message over `--max-message-bytes`",
        "cancellations": "a `Stream` message that gives up more calls than one may hold",
        "requests_in_flight": "unary requests, `--max-requests-in-flight`",
        "bytes_in_flight": "bytes of unary requests beside all else held, `--max-bytes-in-flight`",
        "queue_seconds": "a unary request whose deadline is too near for what waits before it",
        "unread_answers": "answers left unread that fill half of `--max-bytes-in-flight`, or a stream's all of it",
        "store_bytes": "weights or programs that the store, its disk or a device has no room for: "
        "`--max-store-bytes`, `--max-weights-bytes`",
        "unauthenticated": "an RPC without a token, or with one that isn't valid, `--tokens`",
        "permission": "an RPC whose token lacks the scope for it, `--tokens`",
        "unavailable": "no worker was up for `--unavailable-after-seconds`, or until a call's deadline",
    },
    "worker": {
        "queue_calls": "calls waiting, `--max-queue-calls`",
        "queue_bytes": "bytes of calls waiting, `--max-queue-bytes`",
        "queue_seconds": "a call whose deadline is too near for the work that waits before it",
        "output_bytes": "a call whose output would be over `--max-output-bytes`",
        "operations": "a call whose work would be over `--max-call-operations`",
        "message_calls": "a `Stream` message of more than 4,096 calls",
        "parameter_bytes": "a message with more beside its tensors' data than calls need",
        "quarantined": "a call that two workers died of",
    },
}

Snapshot: TypeAlias = dict[str, list[list[Any]]]  # name -> [label values, what the child's `state` gave]
_PART = 64  # values looked at in one turn of a loop: 0.1 ms, and as much again for their JSON


class Counter:
    """A total that only grows."""

    __slots__ = ("value",)

    def __init__(self, _: Metric) -> None:
        self.value = 0.0

    def add(self, n: float = 1) -> None:
        """Counts n more."""
        self.value += n

    def state(self) -> float:
        """The total."""
        return self.value


class Gauge:
    """A value that goes up and down."""

    __slots__ = ("value",)

    def __init__(self, _: Metric) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        """The value is this now."""
        self.value = value

    def add(self, n: float) -> None:
        """The value is n more, or less."""
        self.value += n

    def state(self) -> float:
        """The value."""
        return self.value


class Histogram:
    """How often values fell at or below each bound."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, metric: Metric) -> None:
        self._bounds = metric.buckets
        self.counts = [0] * (len(metric.buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Records a value, `times` times."""
        self.counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    def observe_all(self, values: Iterable[float]) -> None:
        """Records each value."""
        bounds, counts, total = self._bounds, self.counts, 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self.sum += total

    def state(self) -> list[Any]:
        """Counts of each bucket, not cumulative, the last being +Inf's; and the sum."""
        return [list(self.counts), self.sum]


_Child = TypeVar("_Child", Counter, Gauge, Histogram)


class Metrics:
    """The metrics of this process. Counts from several threads at once may be lost."""

    def __init__(self) -> None:
        self._children: dict[tuple[str, tuple[str, ...]], Counter | Gauge | Histogram] = {}
        self._last_states: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._sources: list[Callable[[], None]] = []

    def add_source(self, count: Callable[[], None]) -> None:
        """Lets something be counted only when values are looked at: `count` is called before each look."""
        self._sources.append(count)

    def counter(self, name: str, **labels: str) -> Counter:
        """The counter of these label values; keep it, looking up costs more than counting.

        Raises:
            KeyError: there is no such metric, kind or label.
        """
        return self._child(Counter, "counter", name, labels)

    def gauge(self, name: str, **labels: str) -> Gauge:
        """The gauge of these label values, as `counter`."""
        return self._child(Gauge, "gauge", name, labels)

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The histogram of these label values, as `counter`."""
        return self._child(Histogram, "histogram", name, labels)

    def rejections(self, role: str) -> dict[str, Counter]:
        """The counters of layerwire_rejected_total of a gateway or a worker, by reason; all are there from now on."""
        return {reason: self.counter("layerwire_rejected_total", reason=reason) for reason in REJECTIONS[role]}

    def _count_rest(self) -> None:
        for count in self._sources:
            count()

    def _child(self, make: type[_Child], kind: str, name: str, labels: dict[str, str]) -> _Child:
        metric = METRICS[name]
        if metric.kind != kind or labels.keys() != set(metric.labels):
            raise KeyError(f"{name} is a {metric.kind} with labels {metric.labels}, not a {kind} with {tuple(labels)}")
        key = name, tuple(labels[label] for label in metric.labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = make(metric)
        assert isinstance(child, make)
        return child

    def snapshot(self) -> Snapshot:
        """All values since the process started, as JSON."""
        self._count_rest()
        snapshot: Snapshot = {}
        for (name, values), child in self._children.items():
            snapshot.setdefault(name, []).append([list(values), child.state()])
        return snapshot

    def changes(self) -> Iterator[Snapshot]:
        """What is another than when it was last given here, as JSON, part by part; parts without a change are empty.

        Two hundred operators have 1,600 values, which take 5 ms to look at: between parts others may have their turn.
        """
        self._count_rest()
        children, states = list(self._children.items()), self._last_states
        for start in range(0, len(children), _PART):
            part: Snapshot = {}
            for key, child in children[start : start + _PART]:
                state = child.state()
                if state != states.get(key):
                    states[key] = state
                    part.setdefault(key[0], []).append([list(key[1]), state])
            yield part
