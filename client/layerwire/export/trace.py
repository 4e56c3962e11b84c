"""From a module to torch's graph of it: in evaluation, with a free batch axis where the module can take one.

It knows torch.export; neither programs nor operators.
"""

from __future__ import annotations

import inspect
import io
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

from layerwire.export.refusal import UnsupportedCall, UnsupportedModuleError

# torch's errors by name, for where the classes are depends on its version.
_REASONS = {
    "GuardOnDataDependentSymNode": "what it does depends on the values of a tensor",
}
_IN_TORCH = re.compile(r'-packages/torch/|"torch/')
_FRAME = re.compile(r'File "([^"]*)", line \d+, in \S+')


@dataclass(frozen=True)
class Trace:
    """What torch.export made of a module.

    Attributes:
        module: the module.
        exported_program: torch's ExportedProgram, without calls that change their arguments.
        free_batch: whether axis 0 of the batched inputs may have any size.
        notes: what the caller should know.
    """

    module: Any
    exported_program: Any
    free_batch: bool
    notes: tuple[str, ...]


def trace(name: str, module: Any, examples: Sequence[Any], fixed_because: str = "") -> Trace:
    """Traces a module that is in evaluation.

    Inputs with as many rows as the first one that has axes share the batch axis. torch takes a size of 1 for a
    constant, so that an example of one row is traced as two. With `fixed_because` axis 0 is the example's.

    Raises:
        UnsupportedModuleError: torch can't trace it, most often since what it does depends on its inputs' values.
    """
    rows = next((example.shape[0] for example in examples if example.ndim), 0)
    why = fixed_because
    if rows and not why:
        try:
            exported_program = _export(module, _with_two_rows(examples, rows), rows=max(rows, 2))
            why = _bound(exported_program)
        except Exception as error:
            why = _first_line(error)
        if not why:
            return Trace(module, _functional(exported_program), True, ())
    try:
        exported_program = _export(module, examples, rows=None)
    except Exception as error:
        raise UnsupportedModuleError(name, [_untraceable(module, error)]) from error
    notes = (f"axis 0 is fixed at {rows} rows: {why}",) if rows else ()
    return Trace(module, _functional(exported_program), False, notes)


@contextmanager
def evaluation(module: Any) -> Iterator[None]:
    """Evaluation for every submodule, and afterwards each as it was."""
    in_training = [submodule for submodule in module.modules() if submodule.training]
    module.eval()
    try:
        yield
    finally:
        for submodule in in_training:
            submodule.training = True


def source_line(stack_trace: str) -> str:
    """The innermost frame outside torch; "" if there is none."""
    frames = [match.group(0) for match in _FRAME.finditer(stack_trace)]
    own = [frame for frame in frames if not _IN_TORCH.search(frame)]
    return own[-1] if own else ""


def _with_two_rows(examples: Sequence[Any], rows: int) -> list[Any]:
    import torch

    batched = [example.ndim > 0 and example.shape[0] == rows == 1 for example in examples]
    return [torch.cat([x, x]) if wide else x for x, wide in zip(examples, batched, strict=True)]


def _export(module: Any, examples: Sequence[Any], rows: int | None) -> Any:
    from torch import export

    axes = [{0: export.Dim.AUTO} if rows and x.ndim and x.shape[0] == rows else None for x in examples]
    # torch prints the graph it had when it failed; the error says what is wrong.
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # the module's own came when it ran; the rest is torch's about itself
        return export.export(module, tuple(examples), dynamic_shapes=_by_parameter(module, axes), strict=False)


def _by_parameter(module: Any, axes: Sequence[Any]) -> tuple[Any, ...]:
    """One entry a parameter of forward; all that *args takes is one."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    for position, parameter in enumerate(parameters):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return (*axes[:position], tuple(axes[position:]))
    return tuple(axes)


def _functional(exported_program: Any) -> Any:
    """The same without calls in place: an empty table of decompositions takes nothing else apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return exported_program.run_decompositions({})


def _bound(exported_program: Any) -> str:
    """Why axis 0 isn't free after all; "" if it is."""
    for node in exported_program.graph.nodes:
        if str(node.target).startswith("aten._assert_scalar"):
            return f"the module holds for some batch sizes only [{source_line(node.meta.get('stack_trace') or '')}]"
    constraints = exported_program.range_constraints
    if not constraints:
        return "the module ties the batch axis to the example's size"
    for limits in constraints.values():
        if limits.lower > 2 or "oo" not in str(limits.upper):
            return f"the module holds for batch sizes {limits.lower} to {limits.upper} only"
    return ""


def _first_line(error: BaseException) -> str:
    if type(error).__name__ in _REASONS:
        return _REASONS[type(error).__name__]
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _untraceable(module: Any, error: BaseException) -> UnsupportedCall:
    """The innermost submodule and line that the error came through."""
    paths = {id(submodule): path for path, submodule in module.named_modules()}
    path = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        path = paths.get(id(frame.f_locals.get("self")), path)
    source = source_line("".join(traceback.format_tb(error.__traceback__)))
    return UnsupportedCall(path, "", reason=_first_line(error), source=source)
