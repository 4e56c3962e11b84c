"""What a request of the Open Inference Protocol asks for, in the terms of a call of a program.

It knows ModelInferRequest and programs; nothing of the catalog, plans or lanes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from layerwire.errors import InvalidArgumentError, UnimplementedError, invalid
from layerwire.inference_v2.open_inference_pb2 import ModelInferRequest
from layerwire.v1 import layerwire_pb2
from layerwire.wire.dtypes import DTYPE_NAMES, OF_INFERENCE, ElementType, TensorSpec
from layerwire_server.operators.operator import Operator
from layerwire_server.programs.graph import MAX_INPUTS, MAX_OUTPUTS
from layerwire_server.programs.program import MAX_INTERMEDIATES, Program
from layerwire_server.programs.run import Run
from layerwire_server.worker.call import Content, Options
from layerwire_server.worker.reading.inputs import Brought
from layerwire_server.worker.tensors import checked_spec

MOST_BYTES = 4 * 1024**2  # of a request beside its tensors' data: integers of typed contents are not counted as data
PRIORITY_LEVELS = 21  # 1 is highest; ours go from 10 to -10
DEFAULT_PRIORITY_LEVEL = 11
_MOST_VERSION_DIGITS = 19
_SHOWN = 200

# Parameters of inputs and outputs that ask for what isn't served. Passing over them would give wrong answers.
_REFUSED = {
    "shared_memory_region": "shared memory that a client brings is not served: send raw contents",
    "classification": "classes instead of values are not served",
}


def version_of(text: str) -> int | None:
    """The number that a version's text stands for; None for the default one.

    Raises:
        InvalidArgumentError: it is no number above 0.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_VERSION_DIGITS and int(text)):
        raise invalid("infer", "model_version", f"must be a number above 0, or empty, got {text[:_SHOWN]!r}")
    return int(text)


def options_of(request: ModelInferRequest, *, deterministic: bool) -> Options:
    """How the call is to be treated.

    Raises:
        InvalidArgumentError: a parameter that is read isn't a number, or is negative.
    """
    level = _number(request.parameters, "priority")
    timeout_microseconds = _number(request.parameters, "timeout")
    if not 1 <= level <= PRIORITY_LEVELS:
        level = DEFAULT_PRIORITY_LEVEL
    timeout_seconds = timeout_microseconds / 1e6 if timeout_microseconds else math.inf
    return Options(timeout_seconds, DEFAULT_PRIORITY_LEVEL - level, deterministic)


def as_run(request: ModelInferRequest, run: Operator) -> layerwire_pb2.RunRequest:
    """The native request for the same, without inputs."""
    assert isinstance(run, Run)
    version = version_of(request.model_version)
    return layerwire_pb2.RunRequest(name=request.model_name, version=version, intermediates=run.intermediates)


def outputs_of(program: Program, request: ModelInferRequest) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Which of a call's outputs are wanted, and the intermediates that it is to give after the program's own.

    Raises:
        InvalidArgumentError: there is no such value.
        UnimplementedError: it is wanted in a way that isn't served.
    """
    own = [name for name, _ in program.graph.outputs]
    if len(request.outputs) > MAX_OUTPUTS + MAX_INTERMEDIATES:
        rule = f"must be at most {MAX_OUTPUTS + MAX_INTERMEDIATES}, got {len(request.outputs)}"
        raise invalid("infer", "outputs", rule)
    wanted: dict[str, None] = {}
    for output in request.outputs:
        _check_parameters(output.parameters, "output", output.name)
        if output.name not in own and output.name not in program.graph.names:
            rule = f"must be among {', '.join(own)}, or a value inside the program, got {output.name[:_SHOWN]!r}"
            raise invalid("infer", "outputs", rule)
        wanted[output.name] = None
    if not wanted:
        return tuple(range(len(own))), ()
    inside = tuple(name for name in wanted if name not in own)
    places = {name: place for place, name in enumerate((*own, *inside))}
    return tuple(places[name] for name in wanted), inside


def inputs_of(run: Run, request: ModelInferRequest) -> Brought:
    """Spec and content of each input of the program, None for those that are left out.

    Raises:
        InvalidArgumentError: names, datatypes, shapes or contents are wrong.
        UnimplementedError: a tensor is brought in a way that isn't served.
    """
    given, raw = _named(request.inputs), request.raw_input_contents
    if raw and len(raw) != len(given):
        rule = f"must have an entry for each of {len(given)} inputs, got {len(raw)}"
        raise invalid("infer", "raw_input_contents", rule)
    roles = [role.name for role in run.inputs[:-1]]
    for name in given:
        if name not in roles:
            raise invalid("infer", "inputs", f"must be among {', '.join(roles)}, got {name[:_SHOWN]!r}")
    specs: list[TensorSpec | None] = []
    contents: list[Content] = []
    for name in roles:
        spec, content = None, None
        if name in given:
            place, tensor = given[name]
            datatype, spec = _spec_of(tensor)
            if raw:
                _check_no_contents(tensor)
                content = raw[place]
            else:
                content = _typed(tensor, datatype, spec)
        specs.append(spec)
        contents.append(content)
    return specs, contents


def _named(tensors: Iterable[Any]) -> Mapping[str, tuple[int, Any]]:
    found: dict[str, tuple[int, Any]] = {}
    for place, tensor in enumerate(tensors):
        if place >= MAX_INPUTS:
            raise invalid("infer", "inputs", f"must be at most {MAX_INPUTS}")
        if tensor.name in found:
            raise invalid("infer", "inputs", f"must have each name once, got {tensor.name[:_SHOWN]!r} again")
        _check_parameters(tensor.parameters, "input", tensor.name)
        found[tensor.name] = place, tensor
    return found


def _spec_of(tensor: ModelInferRequest.InferInputTensor) -> tuple[ElementType, TensorSpec]:
    datatype = OF_INFERENCE.get(tensor.datatype)
    if datatype is None:
        known = ", ".join(OF_INFERENCE)
        raise invalid("infer", tensor.name, f"must have a datatype among {known}, got {tensor.datatype[:_SHOWN]!r}")
    return datatype, checked_spec(datatype.code, tuple(tensor.shape), "infer", tensor.name)


def _check_no_contents(tensor: ModelInferRequest.InferInputTensor) -> None:
    if tensor.HasField("contents"):
        raise invalid("infer", tensor.name, "must not have contents, since raw_input_contents are there")


def _typed(tensor: ModelInferRequest.InferInputTensor, datatype: ElementType, spec: TensorSpec) -> bytes:
    """The bytes of typed contents."""
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if not datatype.contents:
        raise invalid("infer", tensor.name, f"must come raw, as its datatype is {datatype.inference}")
    if any(name != datatype.contents for name in filled):
        raise invalid("infer", tensor.name, f"must have {datatype.contents} for {datatype.inference}, got {filled[0]}")
    values = getattr(tensor.contents, datatype.contents)
    count = math.prod(spec.shape)
    if len(values) != count:
        rule = f"must have {count} elements for shape {list(spec.shape)}, got {len(values)}"
        raise invalid("infer", tensor.name, rule)
    target = np.dtype(DTYPE_NAMES[spec.dtype])
    if target.kind not in "iu":
        return np.fromiter(values, target, count).tobytes()
    wide = np.fromiter(values, np.int64, count)
    limits = np.iinfo(target)
    if count and not limits.min <= wide.min() <= wide.max() <= limits.max:
        raise invalid("infer", tensor.name, f"must have elements of {limits.min} to {limits.max}")
    return wide.astype(target).tobytes()


def _check_parameters(parameters: Mapping[str, Any], kind: str, name: str) -> None:
    for parameter in parameters:
        reason = _REFUSED.get(parameter)
        if reason is not None:
            raise UnimplementedError(f"infer: {parameter} of {kind} {name[:_SHOWN]!r}: {reason}", field=parameter)


def _number(parameters: Mapping[str, Any], name: str) -> int:
    """A parameter's number, 0 if it isn't there."""
    if name not in parameters:
        return 0
    parameter = parameters[name]
    choice = parameter.WhichOneof("parameter_choice")
    value = getattr(parameter, choice) if choice in ("int64_param", "uint64_param") else -1
    if value < 0:
        raise InvalidArgumentError(f"infer: {name} must be an int64_param or uint64_param of 0 or more", field=name)
    return int(value)
