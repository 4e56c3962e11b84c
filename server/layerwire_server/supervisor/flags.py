"""The flags of `layerwire serve`, made of the settings' own definitions, and how --help shows them.

It knows the settings' names, units, defaults and bounds; nothing of what they do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import click
from pydantic import ByteSize
from pydantic.fields import FieldInfo

from layerwire_server import config
from layerwire_server.config import HEADINGS, Settings

WIDEST_COLUMNS = 120
_SIZES = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def size(nbytes: int) -> str:
    """65536 -> 64 KiB; what is no multiple of 1024 stays as it is."""
    for unit, factor in _SIZES:
        if nbytes and nbytes % factor == 0:
            return f"{nbytes // factor:,} {unit}"
    return f"{nbytes:,}"


def default(field: FieldInfo) -> str:
    """The default of a setting for people: "64 MiB", "16,384", "no", or "" where there is none."""
    value = field.default
    if isinstance(value, ByteSize):
        return size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def bounds(field: FieldInfo) -> str:
    """The bounds of a setting for people, those of sizes in their units."""
    text = config.bounds(field)
    if isinstance(field.default, ByteSize):
        return re.sub(r"\d[\d,]*", lambda number: size(int(number.group().replace(",", ""))), text)
    return text


def unit(field: FieldInfo) -> str:
    """What a setting's value is counted in, or the choices there are."""
    extra = field.json_schema_extra
    name = str(extra["unit"]) if isinstance(extra, dict) else ""
    return name or "|".join(getattr(field.annotation, "__args__", ()))


def _metavar(field: FieldInfo) -> str:
    name = unit(field)
    return name if "|" in name or ":" in name else name.upper()


def facts(name: str, field: FieldInfo) -> str:
    """What --help says of a setting beside its description: `[default: 1; 1 to 64; LAYERWIRE_WORKERS]`."""
    parts = (f"default: {default(field)}" if default(field) else "", bounds(field), config.variable(name))
    return f"[{'; '.join(part for part in parts if part)}]"


def _names(name: str, field: FieldInfo) -> str:
    """A flag as it is declared to click."""
    return config.flag(name) + (f"/--no-{name.replace('_', '-')}" if field.annotation is bool else "")


def options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the flags. Values stay text: the settings check them, wherever they come from."""
    for name, field in reversed(Settings.model_fields.items()):
        metavar = None if field.annotation is bool else _metavar(field)
        help_ = f"{field.description} {facts(name, field)}"
        function = click.option(_names(name, field), name, default=None, metavar=metavar, help=help_)(function)
    return function


class Command(click.Command):
    """A command whose --help groups the flags, each with what it is below it."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Click: writes what --help says of the flags."""
        for heading, fields in _groups():
            with formatter.section(heading):
                for name, field in fields:
                    formatter.write_text(" ".join((_names(name, field).replace("/", " | "), _metavar(field))).rstrip())
                    with formatter.indentation(), formatter.indentation():
                        formatter.write_text(str(field.description))
                        formatter.write_text(facts(name, field))
        with formatter.section("Help"):
            formatter.write_text("--help")


def _groups() -> Iterator[tuple[str, list[tuple[str, FieldInfo]]]]:
    """The settings under their headings."""
    group: list[tuple[str, FieldInfo]] = []
    heading = ""
    for name, field in Settings.model_fields.items():
        if name in HEADINGS:
            if group:
                yield heading, group
            heading, group = HEADINGS[name], []
        group.append((name, field))
    yield heading, group
