"""Names of values: unique, within the length that programs allow, and clear of the names of nodes' further outputs.

It knows nothing of what they name.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_CHARACTERS = 200


class Names:
    """Names that are in use."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def claim(self, suggestion: str, fields: Iterable[str] = ()) -> str:
        """`suggestion` if it is free, together with "NAME.FIELD" for each field; else with the first number that is."""
        room = MAX_CHARACTERS - 8  # for the number
        stem = suggestion if len(suggestion) <= room else suggestion[-room:]
        fields = tuple(fields)
        name, count = stem, 1
        while self._names.intersection(candidates := {name, *(f"{name}.{field}" for field in fields)}):
            count += 1
            name = f"{stem}_{count}"
        self._names |= candidates
        return name
