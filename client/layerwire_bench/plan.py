"""What a load test is to do: where, what, how much, how long.

It knows words of the command line and their meaning; nothing that runs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from layerwire_bench.result import Load, Mode
from layerwire_bench.workload import Workload

Verify: TypeAlias = Literal["all", "sample", "off"]
How: TypeAlias = Literal["stream", "unary", "oip", "local"]
HOWS: tuple[How, ...] = get_args(How)
LOCAL: How = "local"

MAX_POINTS = 100
MAX_CALLERS = 65_536
MAX_RATE = 1_000_000
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m)?")


@dataclass(frozen=True)
class TargetSpec:
    """Where calls go, and how: by the stream or unary RPCs of Layerwire, the Open Inference Protocol, or torch here."""

    how: How
    address: str | None = None

    def __str__(self) -> str:
        return self.how if self.address is None else f"{self.how}@{self.address}"

    @staticmethod
    def parse(text: str, how: How, address: str | None) -> TargetSpec:
        """HOW@HOST:PORT, HOST:PORT, a HOW, or `local`; `how` and `address` stand for what is left out.

        Raises:
            ValueError: it is none of these.
        """
        before, at, after = text.partition("@")
        if before in HOWS and not at:
            if before == LOCAL:
                return TargetSpec(LOCAL)
            if address is None:
                raise ValueError(f"{text}: which server? {text}@HOST:PORT, or give ADDRESS")
            return TargetSpec(before, address)
        if at and (before not in HOWS or before == LOCAL or not after):
            raise ValueError(f"{text}: must be one of {', '.join(HOWS[:-1])}@HOST:PORT, HOST:PORT, or local")
        way = before if at else how
        return TargetSpec(LOCAL) if way == LOCAL else TargetSpec(way, after if at else text)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Pace:
    """How long a load is measured.

    Attributes:
        warmup_seconds: before anything counts.
        window_seconds: of one look.
        steady_windows: windows in a row that must agree; they are what is reported.
        max_windows: windows after which it is reported that they didn't agree.
        tolerance: by how much the most may be over the least, in throughput and in p50 latency; 0.1 for a tenth.
        duration_seconds: measured exactly so long, steady or not; None: until steady.
    """

    warmup_seconds: float = 1.0
    window_seconds: float = 1.0
    steady_windows: int = 3
    max_windows: int = 10
    tolerance: float = 0.1
    duration_seconds: float | None = None

    @property
    def warmup_windows(self) -> int:
        """Whole windows."""
        return math.ceil(self.warmup_seconds / self.window_seconds - 1e-9)

    @property
    def duration_windows(self) -> int | None:
        """Whole windows, at least one."""
        if self.duration_seconds is None:
            return None
        return max(1, math.ceil(self.duration_seconds / self.window_seconds - 1e-9))


@dataclass(frozen=True)
class Job:
    """What each client process is to do."""

    targets: tuple[TargetSpec, ...]
    workload: Workload
    verify: Verify
    seed: int
    timeout_seconds: float


def loads(text: str, mode: Mode, option: str = "load") -> tuple[Load, ...]:
    """What `--concurrency` or `--rate` asks for: 8; 1,4,16; 1:64 (by one); 10:50:10 (by ten); 1:64:x2 (doubling).

    Raises:
        ValueError: it is none of these, or too many, or too much.
    """
    try:
        values = [value for part in text.split(",") for value in _values(part.strip(), text)]
    except ValueError as error:
        raise ValueError(f"{option} {error}") from None
    if len(values) > MAX_POINTS:
        raise ValueError(f"{option} {text}: {len(values)} loads, more than {MAX_POINTS}")
    if mode != "closed":
        if max(values) > MAX_RATE:
            raise ValueError(f"{option} {text}: at most {MAX_RATE:,} calls per second")
        return tuple(Load(mode, rate=value) for value in values)
    for value in values:
        if value != int(value) or value > MAX_CALLERS:
            raise ValueError(f"{option} {text}: callers must be whole numbers from 1 to {MAX_CALLERS:,}, got {value:g}")
    return tuple(Load(mode, callers=int(value)) for value in values)


def _values(part: str, text: str) -> list[float]:
    start, *rest = part.split(":")
    if len(rest) > 2:
        raise ValueError(
            f"{text}: must be like 8, 1,4,16 or START:END[:STEP], STEP a number to add or xN to multiply by"
        )
    first = _positive(start, text)
    if not rest:
        return [first]
    last = _positive(rest[0], text)
    step = rest[1] if len(rest) == 2 else "1"
    by = _positive(step.removeprefix("x"), text)
    if last < first:
        raise ValueError(f"{text}: the end {last:g} is below the start {first:g}")
    if step.startswith("x") and by <= 1:
        raise ValueError(f"{text}: a factor must be above 1, got {step}")
    values = [first]
    while len(values) <= MAX_POINTS:
        value = values[-1] * by if step.startswith("x") else values[-1] + by
        if value > last * (1 + 1e-9):
            break
        values.append(value)
    return values


def _positive(word: str, text: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"{text}: {word or 'nothing'} is no number") from None
    if not 0 < value < math.inf:
        raise ValueError(f"{text}: must be above 0, got {word}")
    return value


def duration(text: str) -> float:
    """Seconds of 5ms, 250us, 1.5s, 2m, or a number of seconds; raises ValueError if it is none of these, or 0."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{text}: must be a time above 0, such as 5ms, 250us or 1.5s")
    return float(match[1]) * _UNITS[match[2] or "s"]
