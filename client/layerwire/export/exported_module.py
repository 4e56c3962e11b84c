"""A module as data: its program, its weights as a file, and the example's inputs and outputs.

It knows torch's trees of outputs; neither servers nor how calls are mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerwire.export.graph import Value
from layerwire.export.lower import Lowered
from layerwire.export.names import Names
from layerwire.export.refusal import Unsupported, UnsupportedCall, UnsupportedModuleError
from layerwire.export.trace import Trace, evaluation, trace
from layerwire.export.weights import content
from layerwire.v1 import program_pb2
from layerwire.wire.safetensors import SafetensorsFile


@dataclass(frozen=True, eq=False)
class Exported:
    """What `export` made of a module.

    Attributes:
        name: the program's name.
        program: the program; its stored constants name `weights` by digest.
        tensors: the stored constants' torch tensors by key, the module's own where they can be.
        weights: the file of them; None if there are none.
        free_batch: whether axis 0 may have any size.
        notes: what else to know, a sentence each.
        example_inputs: the example's tensors by the names of the program's inputs.
        example_outputs: what the module gave for them, by the names of the program's outputs.
        assemble: makes what the module returns, tuples and dicts included, of outputs by name.
    """

    name: str
    program: program_pb2.Program
    tensors: Mapping[str, Any]
    weights: SafetensorsFile | None
    free_batch: bool
    notes: tuple[str, ...]
    example_inputs: Mapping[str, Any]
    example_outputs: Mapping[str, Any]
    assemble: Callable[[Mapping[str, Any]], Any]


def export(module: Any, *example_inputs: Any, name: str = "module", fold_batch_norm: bool | None = None) -> Exported:
    """Makes a program of a torch.nn.Module, in evaluation whatever its mode; the module is left as it was.

    Axis 0 of the inputs becomes free where the module can take any number of rows. Weights are not copied.

    Args:
        module: the module.
        example_inputs: tensors of torch or numpy, as forward takes them.
        name: the program's name, for errors.
        fold_batch_norm: as in Program; None leaves it to the server.

    Raises:
        UnsupportedModuleError: the module makes calls that no program can express; it lists every one.
        TypeError: the module is not a torch.nn.Module, or an input is no tensor.
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"deploy: module must be a torch.nn.Module, got {type(module).__name__}")
    examples = [_tensor(position, example) for position, example in enumerate(example_inputs)]
    notes = _training_notes(module)
    with evaluation(module):
        with torch.no_grad():
            returned = module(*examples)
        traced, lowered = _lowered(name, module, examples)
    leaves = _named_leaves(traced.exported.call_spec.out_spec)
    try:
        outputs = [(key, value) for key, value in zip(leaves, lowered.outputs, strict=True) if isinstance(value, Value)]
        program, tensors = lowered.graph.build(outputs)
    except Unsupported as error:
        raise UnsupportedModuleError(name, [UnsupportedCall("", "", reason=str(error))]) from None
    weights = _stored(program, tensors)
    if fold_batch_norm is not None:
        program.fold_batch_norm = fold_batch_norm
    given = torch.utils._pytree.tree_leaves(returned)  # noqa: SLF001
    return Exported(
        name=name,
        program=program,
        tensors=tensors,
        weights=weights,
        free_batch=traced.free_batch,
        notes=(*notes, *traced.notes),
        example_inputs={one.name: example for one, example in zip(program.inputs, examples, strict=True)},
        example_outputs={key: given[leaves.index(key)] for key, _ in outputs},
        assemble=_assembler(traced.exported.call_spec.out_spec, leaves, lowered.outputs),
    )


def _lowered(name: str, module: Any, examples: Sequence[Any]) -> tuple[Trace, Lowered]:
    """The module with a free batch axis, or with that of the example where only so every call can be mapped."""
    traced = trace(name, module, examples)
    lowered = Lowered(traced)
    if lowered.refused and traced.free_batch:
        why = str(lowered.refused[0])
        traced = trace(name, module, examples, fixed_because=why)
        fixed = Lowered(traced)
        lowered = lowered if fixed.refused else fixed
    if lowered.refused:
        raise UnsupportedModuleError(name, lowered.refused)
    return traced, lowered


def _tensor(position: int, example: Any) -> Any:
    import numpy as np
    import torch

    if isinstance(example, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(example))
    if isinstance(example, torch.Tensor):
        return example.detach()
    raise TypeError(f"deploy: example input {position} must be a tensor or an array, got {type(example).__name__}")


def _training_notes(module: Any) -> tuple[str, ...]:
    """Submodules whose training mode would have given something else."""
    kinds = ("torch.nn.modules.batchnorm", "torch.nn.modules.instancenorm", "torch.nn.modules.dropout")
    changed = [path for path, one in module.named_modules() if one.training and type(one).__module__ in kinds]
    if not changed:
        return ()
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return (f"in training mode, deployed in evaluation: {', '.join(changed[:3])}{more}",)


def _stored(program: program_pb2.Program, tensors: Mapping[str, Any]) -> SafetensorsFile | None:
    """The file of a program's tensors, whose digest goes into the program."""
    if not tensors:
        return None
    file = SafetensorsFile({key: content(tensor) for key, tensor in tensors.items()})
    for constant in program.constants:
        if constant.WhichOneof("content") == "stored":
            constant.stored.digest = file.digest
    return file


def _named_leaves(spec: Any) -> list[str]:
    """A name for each leaf of what a module returns: "output", "output.1", "scores", "levels.0"."""
    from torch.utils import _pytree

    names, made = Names(), []
    for path, _ in _pytree.tree_flatten_with_path(spec.unflatten(range(spec.num_leaves)))[0]:
        steps = [
            str(next(getattr(entry, kind) for kind in ("key", "idx", "name") if hasattr(entry, kind))) for entry in path
        ]
        is_keyed = steps and not steps[0].isdigit()
        made.append(names.claim(".".join(steps if is_keyed else ["output", *steps])))
    return made


def _assembler(spec: Any, leaves: Sequence[str], fixed: Sequence[Any]) -> Callable[[Mapping[str, Any]], Any]:
    def assemble(outputs: Mapping[str, Any]) -> Any:
        pairs = zip(leaves, fixed, strict=True)
        return spec.unflatten([outputs[name] if isinstance(value, Value) else value for name, value in pairs])

    return assemble
