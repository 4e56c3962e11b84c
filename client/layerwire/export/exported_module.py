"""A module as data: its program, its weights as a file, and the example's inputs and outputs.

It knows torch's trees of outputs; neither servers nor how calls are mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerwire.export.graph import Value
from layerwire.export.lower import Translation
from layerwire.export.names import Names
from layerwire.export.refusal import LoweringError, UnsupportedCall, UnsupportedModuleError
from layerwire.export.trace import Trace, evaluation, trace
from layerwire.export.weights import content
from layerwire.v1 import program_pb2
from layerwire.wire.safetensors import SafetensorsFile


@dataclass(frozen=True, eq=False)
class ExportedModule:
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


def export(
    module: Any, *example_inputs: Any, name: str = "module", fold_batch_norm: bool | None = None
) -> ExportedModule:
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
            example_output = module(*examples)
        torch_trace, translation = _translate(name, module, examples)
    leaves = _named_leaves(torch_trace.exported_program.call_spec.out_spec)
    try:
        outputs = [
            (key, value) for key, value in zip(leaves, translation.outputs, strict=True) if isinstance(value, Value)
        ]
        program, tensors = translation.graph.build(outputs)
    except LoweringError as error:
        raise UnsupportedModuleError(name, [UnsupportedCall("", "", reason=str(error))]) from None
    weights = _weights_file(program, tensors)
    if fold_batch_norm is not None:
        program.fold_batch_norm = fold_batch_norm
    example_leaves = torch.utils._pytree.tree_leaves(example_output)  # noqa: SLF001
    return ExportedModule(
        name=name,
        program=program,
        tensors=tensors,
        weights=weights,
        free_batch=torch_trace.free_batch,
        notes=(*notes, *torch_trace.notes),
        example_inputs={one.name: example for one, example in zip(program.inputs, examples, strict=True)},
        example_outputs={key: example_leaves[leaves.index(key)] for key, _ in outputs},
        assemble=_assembler(torch_trace.exported_program.call_spec.out_spec, leaves, translation.outputs),
    )


def _translate(name: str, module: Any, examples: Sequence[Any]) -> tuple[Trace, Translation]:
    """The module with a free batch axis, or with that of the example where only so every call can be mapped."""
    torch_trace = trace(name, module, examples)
    translation = Translation(torch_trace)
    if translation.unsupported_calls and torch_trace.free_batch:
        why = str(translation.unsupported_calls[0])
        torch_trace = trace(name, module, examples, fixed_because=why)
        with_fixed_batch = Translation(torch_trace)
        translation = translation if with_fixed_batch.unsupported_calls else with_fixed_batch
    if translation.unsupported_calls:
        raise UnsupportedModuleError(name, translation.unsupported_calls)
    return torch_trace, translation


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
    in_training = [path for path, one in module.named_modules() if one.training and type(one).__module__ in kinds]
    if not in_training:
        return ()
    more = f" and {len(in_training) - 3} more" if len(in_training) > 3 else ""
    return (f"in training mode, deployed in evaluation: {', '.join(in_training[:3])}{more}",)


def _weights_file(program: program_pb2.Program, tensors: Mapping[str, Any]) -> SafetensorsFile | None:
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

    names, leaves = Names(), []
    for path, _ in _pytree.tree_flatten_with_path(spec.unflatten(range(spec.num_leaves)))[0]:
        steps = [
            str(next(getattr(entry, kind) for kind in ("key", "idx", "name") if hasattr(entry, kind))) for entry in path
        ]
        is_keyed = steps and not steps[0].isdigit()
        leaves.append(names.claim(".".join(steps if is_keyed else ["output", *steps])))
    return leaves


def _assembler(spec: Any, leaves: Sequence[str], values: Sequence[Any]) -> Callable[[Mapping[str, Any]], Any]:
    def assemble(outputs: Mapping[str, Any]) -> Any:
        pairs = zip(leaves, values, strict=True)
        return spec.unflatten([outputs[name] if isinstance(value, Value) else value for name, value in pairs])

    return assemble
