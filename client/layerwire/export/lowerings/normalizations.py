"""What torch's normalisations become.

It knows their schemas and messages; neither tracing nor naming.
"""

from __future__ import annotations

from layerwire.export.graph import Value
from layerwire.export.refusal import LoweringError
from layerwire.export.traced_call import Lowering, TracedCall
from layerwire.v1 import operators_pb2 as messages


def _normalize(call: TracedCall, operator: messages.NormalizeOperator) -> Value:
    return call.emit(
        operator,
        input=call.value("input" if "input" in call.arguments else "self"),
        weight=call.get("weight"),
        bias=call.get("bias"),
        running_mean=call.get("running_mean"),
        running_var=call.get("running_var"),
    )


def _batch_norm(call: TracedCall) -> Value:
    training = call.get("training", False)
    if training and call.get("running_mean") is not None:
        raise LoweringError("training with running statistics changes them")
    operator = messages.NormalizeOperator(batch_norm=messages.BatchNorm(training=training, eps=call["eps"]))
    return _normalize(call, operator)


def _batch_norm_parts(call: TracedCall) -> list[Value | None]:
    return [_batch_norm(call), None, None]


def _layer_norm(call: TracedCall) -> Value:
    layer = messages.LayerNorm(normalized_shape=call.sizes("normalized_shape"), eps=call["eps"])
    return _normalize(call, messages.NormalizeOperator(layer_norm=layer))


def _layer_norm_parts(call: TracedCall) -> list[Value | None]:
    return [_layer_norm(call), None, None]


def _group_norm(call: TracedCall) -> Value:
    group = messages.GroupNorm(num_groups=call["num_groups"], eps=call["eps"])
    return _normalize(call, messages.NormalizeOperator(group_norm=group))


def _group_norm_parts(call: TracedCall) -> list[Value | None]:
    group = messages.GroupNorm(num_groups=call["group"], eps=call["eps"])
    return [_normalize(call, messages.NormalizeOperator(group_norm=group)), None, None]


def _instance_norm(call: TracedCall) -> Value:
    instance = messages.InstanceNorm(use_input_stats=call["use_input_stats"], eps=call["eps"])
    return _normalize(call, messages.NormalizeOperator(instance_norm=instance))


def _rms_norm(call: TracedCall) -> Value:
    rms = messages.RmsNorm(normalized_shape=call.sizes("normalized_shape"), eps=call.get("eps"))
    return _normalize(call, messages.NormalizeOperator(rms_norm=rms))


NORMALIZATIONS: dict[str, Lowering] = {
    "aten.batch_norm.default": _batch_norm,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm_parts,
    "aten._native_batch_norm_legit.no_stats": _batch_norm_parts,
    "aten.layer_norm.default": _layer_norm,
    "aten.native_layer_norm.default": _layer_norm_parts,
    "aten.group_norm.default": _group_norm,
    "aten.native_group_norm.default": _group_norm_parts,
    "aten.instance_norm.default": _instance_norm,
    "aten.rms_norm.default": _rms_norm,
}
