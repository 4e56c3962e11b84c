"""Resolves a request that runs a program, by name or along with it: its inputs are a map, its weights the last input.

It knows the catalog's programs; nothing of how they are checked or stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from layerwire.errors import invalid
from layerwire.v1 import layerwire_pb2, tensor_pb2
from layerwire.wire import framing
from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.operator import Operator, Specs
from layerwire_server.programs.program import Program
from layerwire_server.programs.run import Run
from layerwire_server.worker.call import Content, Model, OutputSelection
from layerwire_server.worker.plan import Plan
from layerwire_server.worker.request_kinds.inputs import InputReader
from layerwire_server.worker.request_kinds.kind import NativeKind, Resolution, tensors_without_data
from layerwire_server.worker.weights.catalog import Catalog
from layerwire_server.worker.weights.weights_cache import CacheMiss


class RunKind(NativeKind):
    """Requests of a program's outputs."""

    def __init__(self) -> None:
        super().__init__("run", layerwire_pb2.RunRequest, layerwire_pb2.RunResponse)

    def resolve(self, message: Any, inputs: InputReader) -> Resolution:
        """See RequestKind."""
        version, program = _program(message, inputs.catalog)
        return _resolve(program.operator(version, tuple(message.intermediates)), message, inputs)

    def resolve_differentiable(self, message: Any, inputs: InputReader) -> Resolution:
        """See RequestKind."""
        version, program = _program(message, inputs.catalog)
        return _resolve(program.plain_operator(version, tuple(message.intermediates)), message, inputs)

    def operator_and_specs(self, message: Any, inputs: InputReader) -> tuple[Operator, Specs]:
        """See RequestKind."""
        version, program = _program(message, inputs.catalog)
        run = program.operator(version, tuple(message.intermediates))
        specs = (*inputs.specs_from_map(run, run.inputs[:-1], message.inputs), None)
        ensure_sized(run, specs)
        return run, specs

    def model_and_outputs(self, message: Any, plan: Plan) -> tuple[Model | None, OutputSelection | None]:
        """See RequestKind; a program that comes along is no model."""
        if message.WhichOneof("program") != "name":
            return None, None
        assert isinstance(plan.operator, Run)
        return Model(message.name, plan.operator.version), None

    def recipe(self, message: Any, plan: Plan) -> bytes:
        """See RequestKind; a program that comes along has none."""
        if message.WhichOneof("program") != "name":
            return b""
        version = message.version if message.HasField("version") else None
        return recipe_of(message.name, version, message.intermediates, plan)

    def recipe_tensors(self, message: Any) -> Sequence[tensor_pb2.Tensor]:
        """See RequestKind."""
        return self.tensors(message)

    def tensors(self, message: Any) -> Sequence[tensor_pb2.Tensor]:
        """See NativeKind."""
        return [message.inputs[name] for name in sorted(message.inputs)]  # UTF-8 sorts as its characters do

    def _head(self, operator: Operator) -> bytes:
        assert isinstance(operator, Run)
        return layerwire_pb2.RunResponse(version=operator.version).SerializeToString()

    def _slot(self, output_name: str) -> framing.Slot:
        return framing.MapEntry(self._field_numbers["outputs"], output_name)


def recipe_of(name: str, version: int | None, intermediates: Sequence[str], plan: Plan) -> bytes:
    """A request of a stored program like that of a plan, without options and data."""
    recipe = layerwire_pb2.RunRequest(
        name=name, version=version, intermediates=intermediates, inputs=tensors_without_data(plan)
    )
    content: bytes = recipe.SerializeToString(deterministic=True)
    return content


def ensure_sized(run: Run, specs: Specs) -> None:
    """Lets a program that has to be sized for these inputs be sized on another thread.

    Raises:
        InvalidArgumentError: the inputs aren't the program's.
        CacheMiss: it hasn't been sized for them.
    """
    present = tuple(spec for spec in specs if spec is not None)
    if len(present) + 1 == len(specs) and not run.variant.is_known(present):
        run.check(specs)
        raise CacheMiss(lambda: asyncio.to_thread(run.variant.learn, present))


def with_weights(run: Run, specs: list[TensorSpec | None], contents: list[Content], catalog: Catalog) -> Resolution:
    """The program with its weights as the last input.

    Raises:
        InvalidArgumentError: as `ensure_sized`.
        CacheMiss: as `ensure_sized`, or its weights aren't in memory.
    """
    specs.append(None)
    ensure_sized(run, tuple(specs))
    contents.append(catalog.program_weights(run))
    return run, specs, contents


def _resolve(run: Run, message: Any, inputs: InputReader) -> Resolution:
    specs, contents = inputs.from_map(run, run.inputs[:-1], message.inputs, "inputs")
    return with_weights(run, specs, contents, inputs.catalog)


def _program(message: Any, catalog: Catalog) -> tuple[int, Program]:
    """The program, and the number of its version; 0 where it comes along."""
    source = message.WhichOneof("program")
    if source is None:
        raise invalid("run", "program", "is required")
    if source == "name":
        return catalog.program(message.name, message.version if message.HasField("version") else None)
    if message.HasField("version"):
        raise invalid("run", "version", f"goes with a program's name, got {message.version} with a definition")
    return 0, catalog.definition(message.definition)
