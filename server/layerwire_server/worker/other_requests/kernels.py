"""What ListKernels and GetProgram tell of the kernels that were chosen by trial.

It knows choices and messages; nothing of trials, lanes or where choices are kept.
"""

from __future__ import annotations

from collections.abc import Mapping

from layerwire.v1 import store_pb2
from layerwire_server.operators.operator import EAGER
from layerwire_server.programs.run import Run
from layerwire_server.worker.trials.choices import Choice

_MOST_OF_PROGRAM = 1000


def by_name(choices: Mapping[str, Choice]) -> dict[str, store_pb2.KernelChoice]:
    """All, by names to sort and page by, which begin with the operator's."""
    messages = {f"{choice.operator} {key}": _message(key, choice) for key, choice in choices.items()}
    return dict(sorted(messages.items()))


def of_program(choices: Mapping[str, Choice], digest: str) -> list[store_pb2.KernelChoice]:
    """Those of one program, the first by name where they are very many."""
    keys = sorted(key for key in choices if key.startswith(f"{Run.__name__}(digest={digest!r},"))
    return [_message(key, choices[key]) for key in keys[:_MOST_OF_PROGRAM]]


def _message(key: str, choice: Choice) -> store_pb2.KernelChoice:
    operator, _, inputs = key.rpartition(") ")
    trials = [store_pb2.KernelTrial(**candidate._asdict()) for candidate in choice.candidates]
    ratios = {candidate.kernel: candidate.times_as_fast for candidate in choice.candidates}
    return store_pb2.KernelChoice(
        operator=choice.operator,
        parameters=operator + ")",
        inputs=inputs,
        kernel=choice.kernel,
        times_as_fast=1.0 if choice.kernel == EAGER else ratios.get(choice.kernel, 0.0),
        same_bits=choice.same_bits,
        trials=trials,
        start_seconds=choice.start_seconds,
    )
