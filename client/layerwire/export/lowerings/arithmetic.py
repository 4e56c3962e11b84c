"""What torch's sums, products and means become; numbers in them become constants.

It knows their schemas and messages; neither tracing nor naming.
"""

from __future__ import annotations

from typing import Any

from layerwire.export.graph import Value
from layerwire.export.refusal import LoweringError
from layerwire.export.traced_call import Lowering, TracedCall


def _operand(call: TracedCall, operand: Any) -> Value:
    """An operand in the result's dtype: the operators promote nothing, torch does."""
    import torch

    dtype = call.results[0].dtype
    if isinstance(operand, Value):
        if operand.dtype == call.dtype:
            return operand
        if operand.tensor is None:
            raise LoweringError("operands of different dtypes")
        tensor = operand.tensor.detach().to(dtype)
        return call.graph.add_constant(operand.name, tensor) if operand.shape else call.graph.add_scalar(tensor)
    if not isinstance(operand, (int, float)):
        raise LoweringError(
            f"an operand is {type(operand).__name__}" if operand is None else "an operand depends on the batch"
        )
    return call.graph.add_scalar(torch.tensor(operand, dtype=dtype))


def _binary(operator: str) -> Lowering:
    def lower(call: TracedCall) -> Value:
        alpha = call.get("alpha", 1)
        if not isinstance(alpha, (int, float)):
            raise LoweringError("alpha depends on the batch")
        if call.get("rounding_mode") is not None:
            raise LoweringError("rounding_mode")
        fields = {"alpha": alpha} if alpha != 1 else {}
        first, second = _operand(call, call["self"]), _operand(call, call["other"])
        return call.transform(first, second, shape=None, **{operator: fields})

    return lower


def _rsub(call: TracedCall) -> Value:
    if call["alpha"] != 1:
        raise LoweringError("alpha other than 1")
    return call.transform(_operand(call, call["other"]), _operand(call, call["self"]), subtract={})


def _negate(call: TracedCall) -> Value:
    return call.transform(call.value("self"), _operand(call, -1), multiply={})


def _reciprocal(call: TracedCall) -> Value:
    return call.transform(_operand(call, 1), _operand(call, call["self"]), divide={})


def _power(call: TracedCall) -> Value:
    if call["exponent"] != 2:
        raise LoweringError("an exponent other than 2")
    value = _operand(call, call["self"])
    return call.transform(value, value, multiply={})


def _square(call: TracedCall) -> Value:
    return call.transform(call.value("self"), call.value("self"), multiply={})


def _mean(call: TracedCall) -> Value:
    value = _operand(call, call["self"])  # the dtype argument may ask for another
    return call.transform(value, mean={"dims": call.sizes("dim"), "keepdim": call.get("keepdim", False)})


ARITHMETIC: dict[str, Lowering] = {
    **{f"aten.add.{overload}": _binary("add") for overload in ("Tensor", "Scalar")},
    **{f"aten.sub.{overload}": _binary("subtract") for overload in ("Tensor", "Scalar")},
    **{f"aten.mul.{overload}": _binary("multiply") for overload in ("Tensor", "Scalar")},
    **{f"aten.div.{overload}": _binary("divide") for overload in ("Tensor", "Scalar", "Tensor_mode")},
    "aten.rsub.Scalar": _rsub,
    "aten.rsub.Tensor": _rsub,
    "aten.neg.default": _negate,
    "aten.reciprocal.default": _reciprocal,
    "aten.pow.Tensor_Scalar": _power,
    "aten.square.default": _square,
    "aten.mean.dim": _mean,
    "aten.mean.default": _mean,
}
