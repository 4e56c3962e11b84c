"""What a PromQL expression names: selectors with their matchers, and labels that it groups by.

It knows as much of the grammar as names need; whether an expression is valid is for promtool to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(rf"((?:[a-z_]+:)?(?:layerwire_\w+|ALERTS|up\b)(?::\w+)?)(\{{(?:[^}}\"]|{_STRING})*\}})?")
_MATCHER = re.compile(rf"(\w+)\s*(=~|!~|!=|=)\s*({_STRING})")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([\w\s,]*)\)")


class Selector(NamedTuple):
    """A metric, and the values asked for: label -> alternatives of an `=~`, or the one value."""

    metric: str
    labels: dict[str, list[str]]


def selectors(expression: str) -> Iterator[Selector]:
    """Every metric that is named."""
    for metric, matchers in _SELECTOR.findall(_without_strings_of_functions(expression)):
        labels = {label: value.strip('"').split("|") for label, _, value in _MATCHER.findall(matchers)}
        yield Selector(metric, labels)


def grouping_labels(expression: str) -> set[str]:
    """Every label of a by, without, on or ignoring."""
    return {label for labels in _GROUPING.findall(expression) for label in re.findall(r"\w+", labels)}


def _without_strings_of_functions(expression: str) -> str:
    """Without the arguments of label_replace, which may name what is no metric."""
    return re.sub(rf",\s*{_STRING}", ",", expression) if "label_replace" in expression else expression
