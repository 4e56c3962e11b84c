"""What a Layerwire server counted over a stretch of time, read from its page /metrics.

It knows the names of its metrics, and HTTP; neither load nor how the result is shown.
"""

from __future__ import annotations

import http
import http.client
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

from layerwire_bench.result import Phase, Server
from layerwire_bench.servers.exposition import Histogram, Labels, Samples, weighed

PORT = 9464
_TIMEOUT_SECONDS = 2.0
_MAX_PAGE_BYTES = 16 << 20
_KEPT = 64  # readings; a measurement looks back over fewer
# How far the server's calls may be from the client's before it is worth a word: those on their way at the beginning and
# the end of the stretch are counted by one side only.
_MORE, _FEWER, _FOREIGN = 1.25, 0.75, 0.25  # below the last, it isn't the server that was called
_SPARE_CALLS = 100
_TELLING_SECONDS = 1.0

_COUNTED = ("_total", "_count", "_sum", "_bucket")
_PHASES = ("copy_in", "kernel", "copy_out")


class PageError(Exception):
    """The page can't be read; the text is one sentence that says which, and why."""


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


class PageCounts:
    """Readings of a page, and what happened between two of them.

    Args:
        address: of the page, "host:port".
        operators: what is sent, by the operator's name, "run" for programs: phases are of those alone.
    """

    def __init__(self, address: str, operators: Iterable[str]) -> None:
        self._address = address
        self._operators = frozenset(operators)
        self._pages: OrderedDict[int, str] = OrderedDict()
        self._times: dict[int, float] = {}
        self._marks = 0

    def mark(self) -> int:
        """Reads it now; the number of this reading. One that fails is as if there were none."""
        self._marks += 1
        try:
            self._pages[self._marks] = read(self._address)
            self._times[self._marks] = time.monotonic()
        except PageError:
            return self._marks
        if len(self._pages) > _KEPT:
            self._pages.popitem(last=False)
        return self._marks

    def between(self, first: int, last: int, calls: int) -> Server | None:
        """What the server counted between two readings, in which the client had so many answers; None if one failed."""
        if first not in self._pages or last not in self._pages:
            return None
        try:
            before, after = Samples.of(self._pages[first]), Samples.of(self._pages[last])
        except ValueError:
            return None
        grown, anew = after.since(before, lambda name: name.endswith(_COUNTED))
        # A page is read a little after the end of a window, and counters come to it with a delay of their own.
        telling = self._times[last] - self._times[first] >= _TELLING_SECONDS
        return _server(f"/metrics of {self._address}", grown, self._operators, calls if telling else None, anew=anew)


def _server(source: str, grown: Samples, operators: frozenset[str], calls: int | None, *, anew: bool) -> Server:
    """`calls` is None where the stretch is too short to compare them with the server's."""
    succeeded = grown.sum("layerwire_calls_total", lambda labels: labels["code"] == "OK")
    foreign = not anew and calls is not None and calls > _SPARE_CALLS and succeeded < _FOREIGN * calls
    ours = frozenset[str]() if foreign else operators
    copy_in, kernel, copy_out = (_phase(_of_batches(grown, f"layerwire_{name}_seconds", ours)) for name in _PHASES)
    return Server(
        source=source,
        calls=grown.sum("layerwire_calls_total"),
        queue=_phase(grown.histogram("layerwire_queue_seconds", _of(ours))),
        copy_in=copy_in,
        kernel=kernel,
        copy_out=copy_out,
        batch_calls=_mean(grown.histogram("layerwire_batch_calls", _of(ours))),
        batch_rows=_mean(grown.histogram("layerwire_batch_rows", _of(ours))),
        batch_closed=_grew(grown, "layerwire_batch_closed_total", "reason"),
        rejected=_grew(grown, "layerwire_rejected_total", "reason"),
        cpu_seconds=_grew(grown, "layerwire_process_cpu_seconds_total", "process"),
        note=_note(succeeded, calls, grown.sum("layerwire_worker_restarts_total"), anew=anew),
    )


def _of(operators: frozenset[str]) -> Callable[[Labels], bool]:
    return lambda labels: labels["operator"] in operators


def _of_batches(grown: Samples, name: str, operators: frozenset[str]) -> Histogram:
    """A phase of batches as one of calls: an operator's batches count alike, and together as its calls do."""
    return weighed(
        (grown.histogram(name, only), grown.histogram("layerwire_batch_calls", only).mean)
        for only in (_of(frozenset([operator])) for operator in operators)
        if grown.histogram("layerwire_batch_calls", only).count
    )


def _phase(histogram: Histogram) -> Phase | None:
    if not histogram.count:
        return None
    return Phase(histogram.mean, histogram.quantile(0.5), histogram.quantile(0.99))


def _mean(histogram: Histogram) -> float | None:
    return histogram.mean if histogram.count else None


def _grew(grown: Samples, name: str, label: str) -> dict[str, float]:
    return {value: growth for value, growth in grown.by(name, label).items() if growth > 0}


def _note(succeeded: float, calls: int | None, restarts: float, *, anew: bool) -> str | None:
    """What is to be made of it."""
    found = []
    if anew:
        found.append("the server was started anew meanwhile, and what it had counted before is missing")
    elif calls is None:
        pass
    elif succeeded > _MORE * calls + _SPARE_CALLS:
        more = f"{succeeded / calls:.1f} times our calls" if calls else f"{succeeded:,.0f} calls, none of them ours"
        found.append(f"others called at the same time: the server answered {more}")
    elif calls > _SPARE_CALLS and succeeded < _FOREIGN * calls:
        found.append(
            f"the server of this page answered {succeeded:,.0f} calls, and we had {calls:,} answers: it is another one"
        )
    elif succeeded < _FEWER * calls - _SPARE_CALLS:
        found.append(f"the server counted {succeeded:,.0f} calls, and we had {calls:,} answers: not all came from it")
    if restarts > 0 and not anew:
        found.append(f"{restarts:.0f} worker{'s were' if restarts > 1 else ' was'} replaced meanwhile")
    return "; ".join(found) or None
