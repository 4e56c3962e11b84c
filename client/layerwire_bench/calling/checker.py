"""Whether answers are what they should be, looked at while the load goes on.

It knows samples and targets; neither loops nor channels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from layerwire_bench.answers.difference import difference, scale
from layerwire_bench.plan import Verify
from layerwire_bench.targets.target import Target
from layerwire_bench.workload import Arrays, Sample

SAMPLE_SHARE = 0.02  # of the time, which looking at a sample of the answers may take
_AT_FIRST_SECONDS = 0.02


class Checker:
    """Looks at the answers of one target.

    Answers of a sample without an expectation are compared with the first one, whichever target gave it; `firsts` is
    shared by the checkers of a process.

    Attributes:
        comparisons: answers compared.
        wrong: those that differed, by entry of the workload.
        first_wrong: how the first of them differed.
    """

    def __init__(
        self, target: Target, samples: Sequence[Sample], calls: Sequence[Any], verify: Verify, firsts: dict[int, Arrays]
    ) -> None:
        self._target = target
        self._samples = samples
        self._calls = calls
        self._share = {"all": 1e9, "sample": SAMPLE_SHARE, "off": -1.0}[verify]
        self._firsts = firsts
        self._start = time.monotonic()
        self._busy_seconds = 0.0
        self.comparisons = 0
        self.wrong = [0] * (1 + max(sample.entry for sample in samples))
        self.first_wrong: str | None = None

    def look(self, index: int, answer: Any) -> None:
        """Compares the answer of a sample, if all are looked at or there is time for it."""
        now = time.monotonic()
        if self._busy_seconds <= self._share * (now - self._start + _AT_FIRST_SECONDS):
            self.compare(index, answer)
            self._busy_seconds += time.monotonic() - now

    def compare(self, index: int, answer: Any) -> str | None:
        """How the answer differs from what it should be; None if it doesn't."""
        sample = self._samples[index]
        sentence: str | None
        try:
            outputs = self._target.outputs(self._calls[index], answer)
        except ValueError as error:
            sentence = f"the answer can't be read: {error}"
        else:
            expected, atol = sample.expected, sample.atol
            if expected is None:
                expected = self._firsts.setdefault(index, outputs)
                atol *= scale(expected)
            sentence = difference(expected, outputs, sample.rtol, atol)
        self.comparisons += 1
        if sentence is not None:
            self.wrong[sample.entry] += 1
            self.first_wrong = self.first_wrong or f"{sample.request.function}: {sentence}"
        return sentence
