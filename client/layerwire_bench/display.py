"""What is seen of a run while it goes on: a display that moves on a terminal, a line a point elsewhere.

It knows windows and points; nothing of how they are measured.
"""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from layerwire_bench.result import Latency, Load, Point, Window

_BARS = " ▁▂▃▄▅▆▇█"
_HISTORY = 60  # windows in the sparkline
_ROWS = 12  # points that stay in sight


class Display:
    """On a terminal: how far, the last points, and the current one window by window.

    Args:
        console: of standard error.
        points: how many will be measured; None where that isn't known.
    """

    def __init__(self, console: Console, points: int | None) -> None:
        self._points: list[Point] = []
        self._windows: list[Window] = []
        self._now = Text("starting client processes")
        self._sentence = ""
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("points", total=points)
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begins(self, target: str, load: Load, number: int) -> None:
        self._windows = []
        self._now = Text.assemble((target, "cyan"), "  ", (str(load), "bold"), "  warming up")

    def window(self, load: Load, window: Window) -> None:
        self._windows.append(window)
        self._now = Text.assemble((f"{load}  ", "bold"), *_words(window))

    def ends(self, point: Point) -> None:
        self._points.append(point)
        self._progress.advance(self._task)

    def says(self, sentence: str) -> None:
        self._sentence = sentence

    def _picture(self) -> RenderableType:
        rates = [window.throughput for window in self._windows[-_HISTORY:]]
        spark = Text("".join(_BARS[round(rate / max(rates) * 8)] for rate in rates) if any(rates) else "", "green")
        table = [_table(self._points[-_ROWS:])] if self._points else []
        return Group(self._progress, *table, self._now, spark, Text(self._sentence, "dim"))


class Lines:
    """Elsewhere, such as in the log of a CI: a line when a point is done."""

    def __init__(self, console: Console, points: int | None) -> None:
        self._console = console
        self._total = points
        self._number = 0
        self._since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begins(self, target: str, load: Load, number: int) -> None:
        self._number = number

    def window(self, load: Load, window: Window) -> None:
        pass

    def ends(self, point: Point) -> None:
        of = "" if self._total is None else f"/{self._total}"
        p50, p99 = _percentiles(point.latency)
        latency = "no answer" if point.latency is None else f"p50 {p50} p99 {p99} ms"
        bad = f", {point.failures:,} errors" if point.failures else ""
        bad += f", {point.wrong:,} WRONG" if point.wrong else ""
        self.says(f"{self._number}{of} {point.target} {point.load}: {point.throughput:,.0f} calls/s, {latency}{bad}")

    def says(self, sentence: str) -> None:
        seconds = time.monotonic() - self._since
        self._console.print(f"{seconds:6.1f} s  {sentence}", markup=False, highlight=False, soft_wrap=True)


def display(console: Console, points: int | None) -> Display | Lines:
    """What fits where the console writes to."""
    return Display(console, points) if console.is_terminal else Lines(console, points)


def _words(window: Window) -> list[str | tuple[str, str]]:
    """A window in a line."""
    parts: list[str | tuple[str, str]] = [f"{window.throughput:,.0f} calls/s"]
    if window.p50_seconds is not None and window.p99_seconds is not None:
        parts.append(f"  p50 {_ms(window.p50_seconds)} ms  p99 {_ms(window.p99_seconds)} ms")
    parts += [(f"  {count:,} {code}", "yellow") for code, count in window.errors.items()]
    if window.wrong:
        parts.append((f"  {window.wrong:,} WRONG ANSWERS", "bold red"))
    if not window.measured:
        parts.append(("  warming up", "dim"))
    return parts


def _table(points: list[Point]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("target", "load"):
        table.add_column(name, style="dim")
    for name in ("calls/s", "p50 ms", "p99 ms", "errors", "wrong"):
        table.add_column(name, justify="right")
    for point in points:
        texts = (f"{point.throughput:,.0f}", *_percentiles(point.latency), f"{point.failures:,}")
        table.add_row(point.target, str(point.load), *texts, Text(f"{point.wrong:,}", "bold red" * bool(point.wrong)))
    return table


def _percentiles(latency: Latency | None) -> tuple[str, str]:
    return ("-", "-") if latency is None else (_ms(latency.p50_seconds), _ms(latency.p99_seconds))


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:,.0f}"
