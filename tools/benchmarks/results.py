"""What was measured of several contenders in turn, and what is held against it.

Pure: it knows turns and ratios; neither how they were measured nor Markdown.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from layerwire_bench.measuring.comparison import turns as order
from tools.benchmarks.contenders import Contender, Turn

Figure = Literal["throughput", "p50_seconds"]
Watch = Callable[[str], None]


class Ratio(NamedTuple):
    """Ours to theirs: of medians, and least and most of single rounds.

    Attributes:
        cheaper: how many times the processor time of our call theirs takes, client and server together; None where it
            isn't known. It moves less than rates do when neighbours make noise.
    """

    ours: str
    theirs: str
    median: float
    least: float
    most: float
    cheaper: float | None = None


@dataclass(frozen=True)
class Claim:
    """What must be reached.

    Attributes:
        title: a line of the table.
        ours, theirs: names of contenders, of which the best on either side counts.
        bound: of the ratio ours to theirs: at least, or of a latency at most.
        before: the ratio that the state before the round's work had on the machine that is named beside the table.
    """

    title: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    bound: float
    before: str = "-"
    figure: Figure = "throughput"

    @property
    def at_most(self) -> bool:
        """Whether less is better."""
        return self.figure == "p50_seconds"

    def ratio(self, turns: Mapping[str, Sequence[Turn]]) -> Ratio | None:
        """The ratio in what was measured; None where one side is missing."""
        best = min if self.at_most else max

        def median(name: str) -> float:
            return statistics.median(self._figures(turns[name]))

        ours = [name for name in self.ours if turns.get(name)]
        theirs = [name for name in self.theirs if turns.get(name)]
        if not ours or not theirs:
            return None
        mine, other = best(ours, key=median), best(theirs, key=median)
        single = [
            one / another for one, another in zip(self._figures(turns[mine]), self._figures(turns[other]), strict=True)
        ]
        costs = [_cost(turns[name]) for name in (mine, other)]
        cheaper = costs[1] / costs[0] if all(costs) else None
        return Ratio(mine, other, median(mine) / median(other), min(single), max(single), cheaper)

    def is_reached(self, ratio: Ratio) -> bool:
        """Whether the ratio of medians keeps the bound."""
        return ratio.median <= self.bound if self.at_most else ratio.median >= self.bound

    def _figures(self, turns: Sequence[Turn]) -> list[float]:
        return [getattr(turn, self.figure) for turn in turns]


def _cost(turns: Sequence[Turn]) -> float:
    """Microseconds of processor time a call, of all processes."""
    return statistics.median(sum(turn.cpu_microseconds.values()) for turn in turns)


@dataclass(frozen=True)
class Result:
    """One row: what was measured in turn, by contender, a turn a round."""

    title: str
    turns: dict[str, list[Turn]]
    claims: tuple[Claim, ...] = ()
    unit: str = "calls/s"
    notes: list[str] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """For a file."""
        ratios = [(claim, claim.ratio(self.turns)) for claim in self.claims]
        return {
            "title": self.title, "unit": self.unit, "notes": self.notes,
            "turns": {name: [asdict(turn) for turn in turns] for name, turns in self.turns.items()},
            "claims": [
                {"title": claim.title, "bound": claim.bound, "at_most": claim.at_most, "before": claim.before,
                 "ratio": None if ratio is None else ratio._asdict()}
                for claim, ratio in ratios
            ],
        }  # fmt: skip


def rounds(
    contenders: Sequence[Contender], callers: int, count: int, seconds: float, watch: Watch
) -> dict[str, list[Turn]]:
    """Turns of all contenders, there and back."""
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    for number in range(1, count + 1):
        for index in order(len(contenders), number):
            contender = contenders[index]
            turn = contender.turn(callers, seconds)
            turns[contender.name].append(turn)
            failures = f", {turn.failures} FAILED" if turn.failures else ""
            watch(f"round {number} of {count}, {contender.name}: {turn.throughput:,.0f}/s{failures}")
    return turns
