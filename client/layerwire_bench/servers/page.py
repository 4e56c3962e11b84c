"""What a Layerwire server counted over a stretch of time, read from its page /metrics.

It knows the names of its metrics, and HTTP; neither load nor how the result is shown.
"""

from __future__ import annotations

import http
import http.client
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from layerwire_bench.result import Phase, Server
from layerwire_bench.servers.exposition import Histogram, Labels, Samples
from layerwire_bench.servers.readings import MORE, SPARE_CALLS, STARTED_ANEW, Counters

PORT = 9464
_TIMEOUT_SECONDS = 2.0
_MAX_PAGE_BYTES = 16 << 20
_FEWER, _FOREIGN = 0.75, 0.25  # below the last, it isn't the server that was called
_COMPARABLE_SECONDS = 1.0  # a stretch that is long enough to compare the server's calls with the client's

_COUNTERS = ("_total", "_count", "_sum", "_bucket")
_PHASES = ("copy_in", "kernel", "copy_out")


class PageError(Exception):
    """The page can't be read; the text is one sentence that says which, and why."""


class Page(NamedTuple):
    """A page, and when it was read."""

    text: str
    seconds: float


def read(address: str) -> str:
    """The page of a server, by its "host:port".

    Raises:
        PageError: nobody answers, or with something else.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise PageError(f'/metrics: address must be "host:port", got "{address}"')
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
        answer = connection.getresponse()
        page = answer.read(_MAX_PAGE_BYTES).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise PageError(f"/metrics of {address} can't be read: {str(error) or type(error).__name__}") from None
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK or "layerwire_build_info" not in page:
        raise PageError(f"{address} has no /metrics of a Layerwire server")
    return page


class PageCounters(Counters[Page]):
    """Those of a page.

    Args:
        address: of the page, "host:port".
        operators: what is sent, by the operator's name, "run" for programs: phases are of those alone.
    """

    def __init__(self, address: str, operators: Iterable[str]) -> None:
        super().__init__()
        self._address = address
        self._operators = frozenset(operators)

    def _read(self) -> Page | None:
        try:
            return Page(read(self._address), time.monotonic())
        except PageError:
            return None

    def _growth(self, before: Page, after: Page, calls: int) -> Server | None:
        try:
            first, last = Samples.parse(before.text), Samples.parse(after.text)
        except ValueError:
            return None
        growth, anew = last.since(first, lambda name: name.endswith(_COUNTERS))
        # A page is read a little after the end of a window, and counters come to it with a delay of their own.
        comparable = after.seconds - before.seconds >= _COMPARABLE_SECONDS
        source = f"/metrics of {self._address}"
        return _server(source, growth, self._operators, calls if comparable else None, anew=anew)


def _server(source: str, growth: Samples, operators: frozenset[str], calls: int | None, *, anew: bool) -> Server:
    """`calls` is None where the stretch is too short to compare them with the server's."""
    successes = growth.sum("layerwire_calls_total", lambda labels: labels["code"] == "OK")
    foreign = not anew and calls is not None and calls > SPARE_CALLS and successes < _FOREIGN * calls
    ours = frozenset[str]() if foreign else operators
    copy_in, kernel, copy_out = (_phase(_of_calls(growth, f"layerwire_{name}_seconds", ours)) for name in _PHASES)
    return Server(
        source=source,
        calls=growth.sum("layerwire_calls_total"),
        queue=_phase(growth.histogram("layerwire_queue_seconds", _of(ours))),
        copy_in=copy_in,
        kernel=kernel,
        copy_out=copy_out,
        batch_calls=_mean(growth.histogram("layerwire_batch_calls", _of(ours))),
        batch_rows=_mean(growth.histogram("layerwire_batch_rows", _of(ours))),
        batch_closed=_positive(growth.by("layerwire_batch_closed_total", "reason")),
        rejected=_positive(growth.by("layerwire_rejected_total", "reason")),
        cpu_seconds=_positive(growth.by("layerwire_process_cpu_seconds_total", "process")),
        note=_note(successes, calls, growth.sum("layerwire_worker_restarts_total"), anew=anew),
    )


def _of(operators: frozenset[str]) -> Callable[[Labels], bool]:
    return lambda labels: labels["operator"] in operators


def _of_calls(growth: Samples, name: str, operators: frozenset[str]) -> Histogram:
    """A phase of batches as one of calls: an operator's batches count alike, and together as its calls do."""
    total = Histogram()
    for operator in operators:
        only = _of(frozenset([operator]))
        calls = growth.histogram("layerwire_batch_calls", only)
        if calls.count:
            total.add(growth.histogram(name, only), weight=calls.mean)
    return total


def _phase(histogram: Histogram) -> Phase | None:
    if not histogram.count:
        return None
    return Phase(histogram.mean, histogram.quantile(0.5), histogram.quantile(0.99))


def _mean(histogram: Histogram) -> float | None:
    return histogram.mean if histogram.count else None


def _positive(counts: dict[str, float]) -> dict[str, float]:
    return {name: count for name, count in counts.items() if count > 0}


def _note(successes: float, calls: int | None, restarts: float, *, anew: bool) -> str | None:
    """What is to be made of it."""
    notes = []
    if anew:
        notes.append(STARTED_ANEW)
    elif calls is None:
        pass
    elif successes > MORE * calls + SPARE_CALLS:
        more = f"{successes / calls:.1f} times our calls" if calls else f"{successes:,.0f} calls, none of them ours"
        notes.append(f"others called at the same time: the server answered {more}")
    elif calls > SPARE_CALLS and successes < _FOREIGN * calls:
        both = f"{successes:,.0f} calls, and we had {calls:,} answers"
        notes.append(f"the server of this page answered {both}: it is another one")
    elif successes < _FEWER * calls - SPARE_CALLS:
        notes.append(f"the server counted {successes:,.0f} calls, and we had {calls:,} answers: not all came from it")
    if restarts > 0 and not anew:
        notes.append(f"{restarts:.0f} worker{'s were' if restarts > 1 else ' was'} replaced meanwhile")
    return "; ".join(notes) or None
