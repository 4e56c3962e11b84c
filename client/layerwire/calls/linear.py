"""Turns calls of the linear functions of torch.nn.functional into Requests.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from typing import SupportsFloat, SupportsIndex

from layerwire.calls.arguments import integer, number
from layerwire.calls.request import Answer_co, Family, Request, TensorLike, tensors_by_field
from layerwire.v1 import operators_pb2 as messages

_LINEAR = messages.LinearOperator(linear=messages.Linear())
_BILINEAR = messages.LinearOperator(bilinear=messages.Bilinear())


class LinearCalls(Family[Answer_co]):
    """linear, bilinear, cosine_similarity."""

    def linear(
        self, input: TensorLike, weight: TensorLike, bias: TensorLike | None = None, *, timeout: float | None = None
    ) -> Answer_co:
        """y = x W^T + b; `weight` [out_features, in_features] and `bias` [out_features] may be names of stored weights.

        Shape: [..., in_features] -> [..., out_features]
        """
        tensors = tensors_by_field(input=input, weight=weight, bias=bias)
        return self.call(Request("linear", _LINEAR, tensors, ("output",), "linear", timeout))

    def bilinear(
        self,
        input1: TensorLike,
        input2: TensorLike,
        weight: TensorLike,
        bias: TensorLike | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """y = x1^T W x2 + b with `weight` [out_features, in1_features, in2_features] and `bias` [out_features].

        Shape: [..., in1_features] and [..., in2_features] -> [..., out_features]
        """
        tensors = tensors_by_field(input=input1, weight=weight, bias=bias, input2=input2)
        return self.call(Request("linear", _BILINEAR, tensors, ("output",), "bilinear", timeout))

    def cosine_similarity(
        self,
        x1: TensorLike,
        x2: TensorLike,
        dim: SupportsIndex = 1,
        eps: SupportsFloat = 1e-8,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """Cosine of the angle between x1 and x2 along dim of the shape that both are broadcast to.

        Shape: two that broadcast to [..., L, ...] -> [..., ...] without the axis
        """
        message = messages.CosineSimilarity(
            dim=integer("cosine_similarity", "dim", dim), eps=number("cosine_similarity", "eps", eps)
        )
        operator = messages.LinearOperator(cosine_similarity=message)
        tensors = {"input": x1, "input2": x2}
        return self.call(Request("linear", operator, tensors, ("output",), "cosine_similarity", timeout))
