"""Numbers as words: three digits, units that fit, a dash for what isn't known.

It knows numbers; nothing of what they are of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

NONE = "–"  # noqa: RUF001 - a dash, as tables have it
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def number(value: float | None) -> str:
    """Three digits, all those of a larger whole number, a thousandth at the finest: "0.312", "12.4", "12,345"."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    decimals = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(decimals, 0), 3)}f}"


def milliseconds(seconds: float | None) -> str:
    """Without the unit, which the head of a column has."""
    return number(None if seconds is None else seconds * 1e3)


def microseconds(seconds: float | None) -> str:
    """Without the unit, which the head of a column has."""
    return number(None if seconds is None else seconds * 1e6)


def duration(seconds: float | None) -> str:
    """With the unit that fits: "312 µs", "1.24 ms", "3.20 s"."""
    if seconds is None:
        return NONE
    size, unit = next(((size, unit) for size, unit in _UNITS if abs(seconds) >= size), _UNITS[-1])
    return f"{number(seconds / size)} {unit}"


def elapsed_text(seconds: float) -> str:
    """How long something took, for people: "48 s", "12 min 5 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else duration(seconds) if seconds < 10 else f"{rest} s"


def percent(ratio: float | None) -> str:
    """Of a ratio, without the sign, which the head of a column has."""
    return NONE if ratio is None else f"{100 * ratio:.0f}"


def percentile(value: float) -> str:
    """Its name: "p99", "p99.9"."""
    return f"p{value:g}"


def count(value: int) -> str:
    """A whole number in full."""
    return f"{value:,}"


def whole(value: float) -> str:
    """A number in full where it is a whole one: "1", "12,345", "0.500"."""
    return f"{value:,.0f}" if float(value).is_integer() else number(value)


def counts(values: Mapping[str, float]) -> str:
    """How many of what, most first: "512 UNAVAILABLE, 48 DEADLINE_EXCEEDED"."""
    items = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{value:,.0f} {name}" for name, value in items) or NONE


def spread(value: float | None, least: float | None, most: float | None) -> str:
    """A ratio with its range over rounds: "0.446 (0.442..0.452)"."""
    if value is None:
        return NONE
    return f"{number(value)} ({number(least)}..{number(most)})"
