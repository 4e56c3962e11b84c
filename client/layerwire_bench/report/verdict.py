"""What a run says, in a sentence or two, and what to beware of.

It knows results; neither tables nor pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerwire_bench.report import numbers
from layerwire_bench.report.summary import Summary, summaries, targets
from layerwire_bench.result import Ratio, Run, Search

# A rate counts as kept up with when this share of it was answered: Poisson arrivals scatter.
_KEPT_UP = 0.97
# Fewer callers that reach this share of the best throughput are worth a word, if that makes p99 this much shorter.
_NEARLY, _SHORTER = 0.95, 0.8


def title(run: Run) -> str:
    """What was sent, in a line."""
    return run.workload[0] if len(run.workload) == 1 else f"A mix of {len(run.workload)} kinds of calls"


def sentences(run: Run) -> tuple[str, ...]:
    """The answer, most important first."""
    rows = summaries(run)
    if not any(summary.latency for summary in rows):
        return (_nothing(rows),)
    if run.search is not None:
        return _search(run, run.search)
    if run.ratios:
        return _comparison(run.ratios, rows)
    return tuple(sentence for target in targets(run) for sentence in _sweep(run, target, rows))


def wrong(run: Run) -> str | None:
    """On wrong answers; None without any."""
    if not run.wrong:
        return None
    of_all = f" of {run.verified:,} compared" if run.verified >= run.wrong else ""
    first = next((point.first_wrong for point in run.points if point.first_wrong), None)
    return f"{run.wrong:,}{of_all} answers {'was' if run.wrong == 1 else 'were'} wrong." + (
        f" The first: {first}" if first else ""
    )


def errors(run: Run) -> str | None:
    """On calls that ended with an error; None without any."""
    calls = run.failures
    if not calls:
        return None
    total = sum((Counter(point.errors) for point in run.points), Counter[str]())
    first = next((point.first_error for point in run.points if point.failures and point.first_error), None)
    sentence = f"{calls:,} call{'' if calls == 1 else 's'} failed: {numbers.counts(total)}."
    return sentence + (f" The first: {first}" if first else "")


def notes(run: Run) -> tuple[str, ...]:
    """The run's own, and what the servers' figures are to be taken with."""
    of_servers = (point.server.note for point in run.points if point.server is not None)
    return tuple(dict.fromkeys((*run.notes, *(note for note in of_servers if note is not None))))


def best(run: Run) -> Summary | None:
    """What the answer speaks of first: the rate found, or the most throughput; of a comparison, the first target's."""
    rows = [summary for summary in summaries(run) if summary.latency]
    if run.search is not None:
        return next((summary for summary in rows if summary.load.size == run.search.best_rate), None)
    if run.ratios:
        rows = [summary for summary in rows if summary.target == run.ratios[0].baseline]
    return max(rows, key=lambda summary: summary.throughput, default=None)


def early_end(run: Run) -> str | None:
    """Why, or None."""
    if run.failure is not None:
        return f"Ended early: {run.failure}"
    return "Interrupted; shown is what was measured until then." if run.interrupted else None


def _nothing(rows: Sequence[Summary]) -> str:
    if any(summary.calls for summary in rows):
        return "Calls were answered, but none of those that were due while it was measured."
    return "No call succeeded." if rows else "Nothing was measured."


def _figures(summary: Summary) -> str:
    latency = summary.latency
    if latency is None:
        return "no call succeeded"
    return f"p50 {numbers.duration(latency.p50_seconds)}, p99 {numbers.duration(latency.p99_seconds)}"


def _rate(calls_per_second: float | None) -> str:
    return f"{numbers.number(calls_per_second)} calls/s"


def _sweep(run: Run, target: str, rows: Sequence[Summary]) -> tuple[str, ...]:
    own = [summary for summary in rows if summary.target == target and summary.latency]
    subject = f"{target}: " if len(targets(run)) > 1 else ""
    if not own:
        return (f"{subject}no call succeeded.",)
    best = max(own, key=lambda summary: summary.throughput)
    if len(own) == 1:
        behind = best.load.mode != "closed" and best.throughput < _KEPT_UP * best.load.size
        caution = "It didn't keep up: " if behind else ""
        return (f"{subject}{caution}{_rate(best.throughput)} with {best.load}: {_figures(best)}.",)
    if best.load.mode != "closed":
        return tuple(subject + sentence for sentence in _kept_up(own, best))
    sentences = [f"At most {_rate(best.throughput)}, with {best.load}: {_figures(best)}."]
    nearly = next((each for each in own if each.throughput >= _NEARLY * best.throughput and each is not best), None)
    if nearly is not None and _p99(nearly) <= _SHORTER * _p99(best):
        share = numbers.percent(nearly.throughput / best.throughput)
        sentences.append(f"{share} % of that already with {nearly.load}: {_figures(nearly)}.")
    if own[0] not in (best, nearly):
        sentences.append(f"With {own[0].load}, {_rate(own[0].throughput)}: {_figures(own[0])}.")
    return tuple(subject + sentence for sentence in sentences)


def _p99(summary: Summary) -> float:
    return summary.latency.p99_seconds if summary.latency is not None else 0.0


def _kept_up(own: Sequence[Summary], best: Summary) -> tuple[str, ...]:
    within = [summary for summary in own if summary.throughput >= _KEPT_UP * summary.load.size and not summary.failures]
    beyond = [summary for summary in own if summary not in within]
    if not within:
        return (f"It kept up with none of the rates; at most {_rate(best.throughput)} were answered.",)
    most = within[-1]
    sentence = f"It kept up with {_rate(most.load.size)}: {_figures(most)}."
    if not beyond:
        return (sentence,)
    over = beyond[0]
    return sentence, f"Offered {_rate(over.load.size)}, it answered {_rate(over.throughput)}: {_figures(over)}."


def _search(run: Run, search: Search) -> tuple[str, ...]:
    bound = f"{numbers.percentile(search.percentile)} under {numbers.duration(search.bound_seconds)}"
    if not search.trials:
        return ("The search ended before a rate was tried.",)
    if search.best_rate is None:
        lowest = min((trial.rate for trial in search.trials), default=None)
        return (f"No rate that was tried kept {bound}; the lowest was {_rate(lowest)}.",)
    point = best(run)
    figures = f": {_figures(point)}" if point is not None else ""
    if search.first_failed_rate is None:
        beyond = "No higher rate was tried."
    else:
        beyond = f"The lowest rate above it that did not: {_rate(search.first_failed_rate)}."
    return (f"{_rate(search.best_rate)} is the highest rate that kept {bound}{figures}.", beyond)


def _comparison(ratios: Sequence[Ratio], rows: Sequence[Summary]) -> tuple[str, ...]:
    """Each target at the load at which the baseline does most."""
    baseline = [summary for summary in rows if summary.target == ratios[0].baseline]
    best = max(baseline, key=lambda summary: summary.throughput, default=None)
    of_load = [ratio for ratio in ratios if best is None or ratio.load == best.load] or list(ratios)
    first = (
        () if best is None else (f"{best.target} does {_rate(best.throughput)} with {best.load}: {_figures(best)}.",)
    )
    return (*first, *(_ratio(ratio) for ratio in of_load))


def _ratio(ratio: Ratio) -> str:
    parts = [f"{_times(ratio.throughput, ratio.throughput_least, ratio.throughput_most)} its throughput"]
    if ratio.p99 is not None:
        parts.append(f"{_times(ratio.p99, ratio.p99_least, ratio.p99_most)} its p99")
    rounds = f"{ratio.rounds} round{'' if ratio.rounds == 1 else 's'}"
    return f"{ratio.target} has {' and '.join(parts)}, over {rounds} with {ratio.load}."


def _times(value: float, least: float | None, most: float | None) -> str:
    return f"{numbers.number(value)} times ({numbers.number(least)} to {numbers.number(most)})"
