"""What was measured, as the tables of BENCHMARKS.md.

It knows results and Markdown; nothing of how they were measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from layerwire_bench.result import Machine
from tools.benchmarks.contenders import Turn
from tools.benchmarks.results import Claim, Result

_MOST_PROCESSES = 6  # in a cell


def claims(results: Sequence[Result]) -> str:
    """What must be reached, and what was."""
    rows = [_claim(claim, result) for result in results for claim in result.claims]
    heads = "", "must be", "is (least to most)", "before", "reached", "times cheaper in processor time", "of"
    return table(heads, rows)


def _claim(claim: Claim, result: Result) -> tuple[str, ...]:
    must = f"at {'most' if claim.at_most else 'least'} {claim.bound:g}"
    ratio = claim.ratio(result.turns)
    if ratio is None:
        return claim.title, must, "not measured", claim.before, "-", "-", "-"
    spread = f"**{ratio.median:.2f}** ({ratio.least:.2f} to {ratio.most:.2f})"
    reached = "yes" if claim.is_reached(ratio) else "no"
    cheaper = "-" if ratio.cheaper is None else f"{ratio.cheaper:.2f}"
    return claim.title, must, spread, claim.before, reached, cheaper, f"{ratio.ours} / {ratio.theirs}"


def result(one: Result) -> str:
    """Medians over rounds with least and most, and what a call costs each process."""
    rows = [(name, *_row(turns)) for name, turns in one.turns.items() if turns]
    heads = (one.title, f"{one.unit}, median", "least", "most", "p50 ms", "p99 ms", "us of processor a call")
    notes = "".join(f"\n\n{note[0].upper()}{note[1:]}." for note in dict.fromkeys(one.notes))
    return table(heads, rows) + notes


def _row(turns: Sequence[Turn]) -> tuple[str, ...]:
    rates = [turn.throughput for turn in turns]
    p50, p99 = (statistics.median(getattr(turn, f"{name}_seconds") for turn in turns) * 1e3 for name in ("p50", "p99"))
    failures = sum(turn.failures for turn in turns)
    failed = f"; {failures:,} calls failed" if failures else ""
    return (
        rate(statistics.median(rates)),
        rate(min(rates)),
        rate(max(rates)),
        f"{p50:.3g}",
        f"{p99:.3g}",
        (_costs(turns) + failed),
    )


def _costs(turns: Sequence[Turn]) -> str:
    """Of processes that cost anything, the dearest first."""
    names = {name for turn in turns for name in turn.cpu_microseconds}
    costs = {name: statistics.median(turn.cpu_microseconds.get(name, 0.0) for turn in turns) for name in names}
    most = sorted(costs.items(), key=lambda item: -item[1])[:_MOST_PROCESSES]
    total = sum(costs.values())
    parts = ", ".join(f"{name} {cost:,.0f}" for name, cost in most if cost >= 0.5)
    return f"{total:,.0f}: {parts}" if parts else "-"


def rate(per_second: float) -> str:
    """A rate in few digits."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.1f}"


def machine(host: Machine) -> str:
    """A paragraph on where it was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in host.versions.items())
    memory = "" if host.memory_bytes is None else f", {host.memory_bytes / 2**30:.0f} GiB of memory"
    return f"{host.cores} cores of {host.cpu}{memory}, {host.system}; {versions}."


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
