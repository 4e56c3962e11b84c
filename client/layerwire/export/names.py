"""Names of values: unique, within the length that programs allow, and clear of the names of nodes' further outputs.

It knows nothing of what they name.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_CHARACTERS = 200


class Names:
    """Names that are taken."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def claim(self, wanted: str, fields: Iterable[str] = ()) -> str:
        """`wanted` if it is free, together with "NAME.FIELD" for each field; else with the first number that is."""
        room = MAX_CHARACTERS - 8  # for the number
        stem = wanted if len(wanted) <= room else wanted[-room:]
        fields = tuple(fields)
        name, count = stem, 1
        while self._taken.intersection(claimed := {name, *(f"{name}.{field}" for field in fields)}):
            count += 1
            name = f"{stem}_{count}"
        self._taken |= claimed
        return name
