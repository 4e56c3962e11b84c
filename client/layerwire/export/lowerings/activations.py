"""What torch's activations become.

It knows their schemas and messages; neither tracing nor naming.
"""

from __future__ import annotations

import math
from typing import Any

from layerwire.export.graph import Value
from layerwire.export.refusal import LoweringError
from layerwire.export.traced_call import Lowering, TracedCall
from layerwire.v1 import operators_pb2 as messages


def _activation(name: str, /, **arguments: str) -> Lowering:
    """One whose message's fields are arguments of the call, by the names given."""

    def lower(call: TracedCall) -> Value:
        fields = {field: call.get(argument) for field, argument in arguments.items()}
        return _activate(call, name, **fields)

    return lower


def _activate(call: TracedCall, name: str, /, **fields: Any) -> Value:
    message = messages.ActivateOperator()
    one = getattr(message, name)
    one.SetInParent()
    for field, number in fields.items():
        if number is not None:
            setattr(one, field, number)
    return call.emit(message, input=call.value("self"))


def _softmax(name: str) -> Lowering:
    def lower(call: TracedCall) -> Value:
        cast = call.dtype if call.dtype != call.value("self").dtype else 0
        return _activate(call, name, dim=call["dim"], dtype=cast)

    return lower


def _prelu(call: TracedCall) -> Value:
    operator = messages.ActivateOperator(prelu=messages.Prelu())
    return call.emit(operator, input=call.value("self"), weight=call.value("weight"))


def _rrelu(call: TracedCall) -> Value:
    if call["training"]:
        raise LoweringError("slopes are drawn in training")
    return _activate(call, "rrelu", lower=call["lower"], upper=call["upper"])


def _elu(call: TracedCall) -> Value:
    if call["scale"] != 1 or call["input_scale"] != 1:
        raise LoweringError("scale and input_scale other than 1")
    return _activate(call, "elu", alpha=call["alpha"])


def _clamp(call: TracedCall) -> Value:
    least, most = call.get("min", -math.inf), call.get("max", math.inf)
    if isinstance(least, Value) or isinstance(most, Value) or call.dtype != call.value("self").dtype:
        raise LoweringError("limits that are tensors or of another dtype")
    return _activate(call, "hardtanh", min_val=min(least, most), max_val=most)


def _log_sigmoid_parts(call: TracedCall) -> list[Value | None]:
    return [_activate(call, "logsigmoid"), None]


_FIELDS = messages.ActivateOperator.DESCRIPTOR.fields

ACTIVATIONS: dict[str, Lowering] = {
    **{
        f"aten.{field.name}.default": _activation(field.name)
        for field in _FIELDS
        if field.message_type and not field.message_type.fields
    },
    "aten.log_sigmoid.default": _activation("logsigmoid"),
    "aten.log_sigmoid_forward.default": _log_sigmoid_parts,
    "aten.leaky_relu.default": _activation("leaky_relu", negative_slope="negative_slope"),
    "aten.elu.default": _elu,
    "aten.celu.default": _activation("celu", alpha="alpha"),
    "aten.gelu.default": _activation("gelu", approximate="approximate"),
    "aten.softplus.default": _activation("softplus", beta="beta", threshold="threshold"),
    "aten.hardtanh.default": _activation("hardtanh", min_val="min_val", max_val="max_val"),
    "aten.softshrink.default": _activation("softshrink", lambd="lambd"),
    "aten.hardshrink.default": _activation("hardshrink", lambd="lambd"),
    "aten.threshold.default": _activation("threshold", threshold="threshold", value="value"),
    "aten.glu.default": _activation("glu", dim="dim"),
    "aten.softmax.int": _softmax("softmax"),
    "aten._softmax.default": _softmax("softmax"),
    "aten.log_softmax.int": _softmax("log_softmax"),
    "aten._log_softmax.default": _softmax("log_softmax"),
    "aten.prelu.default": _prelu,
    "aten.rrelu.default": _rrelu,
    "aten.clamp.default": _clamp,
    "aten.clamp_min.default": _clamp,
    "aten.clamp_max.default": _clamp,
}
