"""What torch's convolutions and matrix products become.

It knows their schemas and messages; neither tracing nor naming.
"""

from __future__ import annotations

from layerwire.export.graph import Value
from layerwire.export.refusal import LoweringError
from layerwire.export.traced_call import Lowering, TracedCall
from layerwire.v1 import operators_pb2 as messages

_PADDINGS = {"valid": messages.NAMED_PADDING_VALID, "same": messages.NAMED_PADDING_SAME}


def _conv(call: TracedCall) -> Value:
    conv = messages.Conv(
        spatial_dims=len(call.value("weight").shape) - 2,
        stride=call.sizes("stride"),
        dilation=call.sizes("dilation"),
        groups=call["groups"],
    )
    if isinstance(call["padding"], str):
        conv.named_padding = _PADDINGS[call["padding"]]
    else:
        conv.padding.extend(call.sizes("padding"))
    return _convolve(call, messages.ConvolveOperator(conv=conv))


def _conv_transpose(call: TracedCall) -> Value:
    conv = messages.ConvTranspose(
        spatial_dims=len(call.value("weight").shape) - 2,
        stride=call.sizes("stride"),
        padding=call.sizes("padding"),
        output_padding=call.sizes("output_padding"),
        groups=call["groups"],
        dilation=call.sizes("dilation"),
    )
    return _convolve(call, messages.ConvolveOperator(conv_transpose=conv))


def _convolve(call: TracedCall, operator: messages.ConvolveOperator) -> Value:
    return call.emit(operator, input=call.value("input"), weight=call.value("weight"), bias=call.get("bias"))


def _convolution(call: TracedCall) -> Value:
    return _conv_transpose(call) if call["transposed"] else _conv(call)


def _conv_tbc(call: TracedCall) -> Value:
    operator = messages.ConvolveOperator(conv_tbc=messages.ConvTbc(pad=call["pad"]))
    return call.emit(operator, input=call.value("self"), weight=call.value("weight"), bias=call.value("bias"))


def _unfold(call: TracedCall) -> Value:
    unfold = messages.Unfold(
        kernel_size=call.sizes("kernel_size"),
        dilation=call.sizes("dilation"),
        padding=call.sizes("padding"),
        stride=call.sizes("stride"),
    )
    return call.emit(messages.ConvolveOperator(unfold=unfold), input=call.value("self"))


def _fold(call: TracedCall) -> Value:
    fold = messages.Fold(
        output_size=call.sizes("output_size"),
        kernel_size=call.sizes("kernel_size"),
        dilation=call.sizes("dilation"),
        padding=call.sizes("padding"),
        stride=call.sizes("stride"),
    )
    return call.emit(messages.ConvolveOperator(fold=fold), input=call.value("self"))


def _linear(call: TracedCall) -> Value:
    operator = messages.LinearOperator(linear=messages.Linear())
    return call.emit(operator, input=call.value("input"), weight=call.value("weight"), bias=call.get("bias"))


def _bilinear(call: TracedCall) -> Value:
    operator = messages.LinearOperator(bilinear=messages.Bilinear())
    weight, bias = call.value("weight"), call.get("bias")
    return call.emit(operator, input=call.value("input1"), input2=call.value("input2"), weight=weight, bias=bias)


def _cosine_similarity(call: TracedCall) -> Value:
    operator = messages.LinearOperator(
        cosine_similarity=messages.CosineSimilarity(dim=call.get("dim"), eps=call.get("eps"))
    )
    return call.emit(operator, input=call.value("x1"), input2=call.value("x2"))


def _matmul(call: TracedCall) -> Value:
    other = call.value("mat2" if "mat2" in call.arguments else "other")
    return call.transform(call.value("self"), other, matmul={})


def _addmm(call: TracedCall) -> Value:
    if call["beta"] != 1 or call["alpha"] != 1:
        raise LoweringError("beta and alpha other than 1")
    product = call.transform(call.value("mat1"), call.value("mat2"), matmul={})
    return call.transform(product, call.value("self"), add={})


CONVOLUTIONS: dict[str, Lowering] = {
    **{f"aten.conv{dims}d.{overload}": _conv for dims in (1, 2, 3) for overload in ("default", "padding")},
    **{f"aten.conv_transpose{name}": _conv_transpose for name in ("1d.default", "2d.input", "3d.input")},
    "aten.convolution.default": _convolution,
    "aten.conv_tbc.default": _conv_tbc,
    "aten.im2col.default": _unfold,
    "aten.col2im.default": _fold,
    "aten.linear.default": _linear,
    "aten.bilinear.default": _bilinear,
    "aten.cosine_similarity.default": _cosine_similarity,
    "aten.matmul.default": _matmul,
    "aten.mm.default": _matmul,
    "aten.bmm.default": _matmul,
    "aten.addmm.default": _addmm,
}
