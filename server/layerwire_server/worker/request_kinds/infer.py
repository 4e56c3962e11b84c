"""Resolves and answers a request of the Open Inference Protocol: its model is a program, its parameters our options.

It knows ModelInferRequest, ModelInferResponse and programs; nothing of how the protocol's other RPCs are answered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from layerwire.errors import InvalidArgumentError, UnimplementedError, invalid
from layerwire.inference_v2.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from layerwire.v1 import layerwire_pb2
from layerwire.wire import protobuf
from layerwire.wire.dtypes import DTYPE_NAMES, INFERENCE_NAMES, OF_INFERENCE, ElementType, TensorSpec
from layerwire_server.programs.graph import MAX_INPUTS, MAX_OUTPUTS
from layerwire_server.programs.program import MAX_INTERMEDIATES, Program
from layerwire_server.programs.run import Run
from layerwire_server.worker.call import CallGroup, Content, Model, OutputSelection
from layerwire_server.worker.plan import Plan
from layerwire_server.worker.request_kinds.inputs import InputReader
from layerwire_server.worker.request_kinds.kind import Pieces, RequestKind, Resolution
from layerwire_server.worker.request_kinds.run import recipe_of, with_weights
from layerwire_server.worker.tensors import checked_spec

PRIORITY_LEVELS = 21  # 1 is highest; ours go from 10 to -10
DEFAULT_PRIORITY_LEVEL = 11
_MOST_VERSION_DIGITS = 19
_SHOWN = 200
_RAW = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER

DATATYPES = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64")  # in errors

# Parameters of inputs and outputs that ask for what isn't served. Passing over them would give wrong answers.
_REFUSED = {
    "shared_memory_region": "shared memory that a client brings is not served: send raw contents",
    "classification": "classes instead of values are not served",
}


class InferKind(RequestKind):
    """Requests of a model's outputs. They wait in the lanes of the program's native calls."""

    most_bytes = 4 * 1024**2  # integers of typed contents are not counted as data

    def __init__(self) -> None:
        super().__init__("infer", ModelInferRequest)

    def call_options(self, message: ModelInferRequest) -> layerwire_pb2.CallOptions:
        """See RequestKind; they are parameters of the request."""
        level = _number(message.parameters, "priority")
        timeout_microseconds = _number(message.parameters, "timeout")
        if not 1 <= level <= PRIORITY_LEVELS:
            level = DEFAULT_PRIORITY_LEVEL
        timeout_seconds = timeout_microseconds / 1e6 if timeout_microseconds else None
        return layerwire_pb2.CallOptions(timeout_seconds=timeout_seconds, priority=DEFAULT_PRIORITY_LEVEL - level)

    def resolve(self, message: ModelInferRequest, inputs: InputReader) -> Resolution:
        """See RequestKind."""
        version, program = inputs.catalog.program(message.model_name, version_of(message.model_version))
        run = program.operator(version, _intermediates(program, message))
        return with_weights(run, *_read_inputs(run, message), inputs.catalog)

    def model_and_outputs(self, message: ModelInferRequest, plan: Plan) -> tuple[Model | None, OutputSelection | None]:
        """See RequestKind."""
        assert isinstance(plan.operator, Run)
        if message.outputs:
            places = {name: place for place, name in enumerate(plan.output_names)}
            outputs = tuple(places[name] for name in dict.fromkeys(output.name for output in message.outputs))
        else:
            outputs = tuple(range(len(plan.output_names)))
        return Model(message.model_name, plan.operator.version), OutputSelection(message.id, outputs)

    def recipe(self, message: ModelInferRequest, plan: Plan) -> bytes:
        """See RequestKind: it is the native request for the same."""
        assert isinstance(plan.operator, Run)
        version = version_of(message.model_version)
        return recipe_of(message.model_name, version, plan.operator.intermediates, plan)

    def write_response(self, call: CallGroup, outputs: list[memoryview], timing: bytes) -> Pieces:
        """See RequestKind: outputs come raw, also where inputs came typed, as Triton's do; there is no timing in it."""
        plan, model, selection = call.plan, call.model, call.output_selection
        assert model is not None
        assert selection is not None
        head = ModelInferResponse(
            model_name=model.name,
            model_version=str(model.version),
            id=selection.request_id,
            outputs=[
                ModelInferResponse.InferOutputTensor(
                    name=plan.output_names[index],
                    datatype=INFERENCE_NAMES[plan.outputs[index].dtype],
                    shape=plan.outputs[index].shape,
                )
                for index in selection.outputs
            ],
        )
        pieces: list[bytes | memoryview] = [head.SerializeToString()]
        for index in selection.outputs:
            data = outputs[index]
            pieces += (protobuf.prefix(_RAW, len(data)), data)
        return pieces, sum(map(len, pieces))


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


def _intermediates(program: Program, request: ModelInferRequest) -> tuple[str, ...]:
    """The intermediates that a call is to give after the program's own outputs.

    Raises:
        InvalidArgumentError: there is no such value.
        UnimplementedError: a value is asked for in a way that isn't served.
    """
    own = [name for name, _ in program.graph.outputs]
    if len(request.outputs) > MAX_OUTPUTS + MAX_INTERMEDIATES:
        rule = f"must be at most {MAX_OUTPUTS + MAX_INTERMEDIATES}, got {len(request.outputs)}"
        raise invalid("infer", "outputs", rule)
    for output in request.outputs:
        _check_parameters(output.parameters, "output", output.name)
        if output.name not in own and output.name not in program.graph.names:
            rule = f"must be among {', '.join(own)}, or a value inside the program, got {output.name[:_SHOWN]!r}"
            raise invalid("infer", "outputs", rule)
    return tuple(dict.fromkeys(output.name for output in request.outputs if output.name not in own))


def _read_inputs(run: Run, request: ModelInferRequest) -> tuple[list[TensorSpec | None], list[Content]]:
    """Spec and content of each input of the program, None for those that are left out.

    Raises:
        InvalidArgumentError: names, datatypes, shapes or contents are wrong.
        UnimplementedError: a tensor is brought in a way that isn't served.
    """
    tensors, raw = _tensors_by_name(request.inputs), request.raw_input_contents
    if raw and len(raw) != len(tensors):
        rule = f"must have an entry for each of {len(tensors)} inputs, got {len(raw)}"
        raise invalid("infer", "raw_input_contents", rule)
    roles = [role.name for role in run.inputs[:-1]]
    for name in tensors:
        if name not in roles:
            raise invalid("infer", "inputs", f"must be among {', '.join(roles)}, got {name[:_SHOWN]!r}")
    specs: list[TensorSpec | None] = []
    contents: list[Content] = []
    for name in roles:
        spec, content = None, None
        if name in tensors:
            place, tensor = tensors[name]
            datatype, spec = _spec_of(tensor)
            if raw:
                _check_no_contents(tensor)
                content = raw[place]
            else:
                content = _typed_data(tensor, datatype, spec)
        specs.append(spec)
        contents.append(content)
    return specs, contents


def _tensors_by_name(tensors: Iterable[Any]) -> Mapping[str, tuple[int, Any]]:
    """Each tensor with its place."""
    by_name: dict[str, tuple[int, Any]] = {}
    for place, tensor in enumerate(tensors):
        if place >= MAX_INPUTS:
            raise invalid("infer", "inputs", f"must be at most {MAX_INPUTS}")
        if tensor.name in by_name:
            raise invalid("infer", "inputs", f"must have each name once, got {tensor.name[:_SHOWN]!r} again")
        _check_parameters(tensor.parameters, "input", tensor.name)
        by_name[tensor.name] = place, tensor
    return by_name


def _spec_of(tensor: ModelInferRequest.InferInputTensor) -> tuple[ElementType, TensorSpec]:
    datatype = OF_INFERENCE.get(tensor.datatype)
    if datatype is None:
        among = ", ".join(DATATYPES)
        raise invalid("infer", tensor.name, f"must have a datatype among {among}, got {tensor.datatype[:_SHOWN]!r}")
    return datatype, checked_spec(datatype.code, tuple(tensor.shape), "infer", tensor.name)


def _check_no_contents(tensor: ModelInferRequest.InferInputTensor) -> None:
    if tensor.HasField("contents"):
        raise invalid("infer", tensor.name, "must not have contents, since raw_input_contents are there")


def _typed_data(tensor: ModelInferRequest.InferInputTensor, datatype: ElementType, spec: TensorSpec) -> bytes:
    """The bytes of typed contents."""
    fields = [field.name for field, _ in tensor.contents.ListFields()]
    if not datatype.contents:
        raise invalid("infer", tensor.name, f"must come raw, as its datatype is {datatype.inference}")
    if any(name != datatype.contents for name in fields):
        raise invalid("infer", tensor.name, f"must have {datatype.contents} for {datatype.inference}, got {fields[0]}")
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
