"""A run as JSON, and back.

It knows what a run is made of by its dataclasses alone, whose docstrings say what each field means.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields

from layerwire_bench.result import Run

SCHEMA = next(field.default for field in fields(Run) if field.name == "schema")


def to_json(run: Run) -> str:
    """The whole run: every field of layerwire_bench.result under its own name; times in seconds. To be kept as UTF-8.

    Characters that UTF-8 has no form for, as in a command line of other bytes, become question marks.

    Raises:
        ValueError: a number that JSON has no word for, such as NaN.
    """
    written = json.dumps(asdict(run), indent=1, allow_nan=False, ensure_ascii=False)
    return written.encode("utf-8", "replace").decode() + "\n"


def from_json(text: str) -> Run:
    """The run that `to_json` wrote, equal to it. Needs pydantic.

    Raises:
        ValueError: not such JSON, another schema, a field that is missing, unknown or of another type.
    """
    from pydantic import TypeAdapter

    written = json.loads(text, parse_constant=_refuse)
    found = written.get("schema") if isinstance(written, dict) else None
    if found != SCHEMA:
        raise ValueError(f"run: schema must be {SCHEMA}, got {found!r}")
    run = TypeAdapter(Run).validate_json(text, strict=True)
    if json.loads(to_json(run)) != written:  # pydantic passes over what it doesn't know
        raise ValueError("run: fields must be those of schema 1, all of them and no others")
    return run


def _refuse(constant: str) -> float:
    raise ValueError(f"run: numbers must be finite, got {constant}")
