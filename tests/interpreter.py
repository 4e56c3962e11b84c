"""A program run by name: tensors in, outputs and intermediates out, with the load tester's interpreter."""

from __future__ import annotations

from layerwire.v1 import program_pb2
from layerwire_bench.answers.interpreter import Interpreter, Tensors


def run(program: program_pb2.Program, inputs: Tensors, weights: Tensors | None = None, intermediates=()):
    """The outputs by name, and the intermediates by their values' names; weights by their keys in the file."""
    with_intermediates = program_pb2.Program()
    with_intermediates.CopyFrom(program)
    for name in intermediates:
        with_intermediates.outputs.add(name=name, value=name)
    by_constant = {one.name: (weights or {})[one.stored.key] for one in program.constants if one.HasField("stored")}
    interpreter = Interpreter(with_intermediates, by_constant)
    if set(inputs) != set(interpreter.inputs):
        raise ValueError(f"inputs must be {', '.join(interpreter.inputs)}, got {', '.join(inputs) or 'none'}")
    return dict(zip(interpreter.outputs, interpreter([inputs[name] for name in interpreter.inputs]), strict=True))
