"""Turns calls of the activations that look along an axis into Requests: glu and the kinds of softmax.

It knows their messages; neither channels nor torch.
"""

from __future__ import annotations

from typing import SupportsFloat, SupportsIndex

from layerwire.calls.arguments import DTypeLike, dtype_name, flag, integer, number, seed_of
from layerwire.calls.request import Answer_co, Family, Request, TensorLike
from layerwire.v1 import operators_pb2 as messages


class AxisCalls(Family[Answer_co]):
    """glu, softmax, softmin, log_softmax, gumbel_softmax."""

    def glu(self, input: TensorLike, dim: SupportsIndex = -1, *, timeout: float | None = None) -> Answer_co:
        """a * sigmoid(b), where a and b are the halves of x along dim.

        Shape: [..., 2 L, ...] -> [..., L, ...]
        """
        message = messages.Glu(dim=integer("glu", "dim", dim))
        return self._activate("glu", messages.ActivateOperator(glu=message), input, timeout)

    def softmax(
        self,
        input: TensorLike,
        dim: SupportsIndex | None = None,
        _stacklevel: SupportsIndex = 3,
        dtype: DTypeLike | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """exp(x) / sum(exp(x)) along dim, of x cast to `dtype` first.

        `dim` None is 0 for an input of 0, 1 or 3 axes, else 1, as in torch, which warns of it. `dtype` is torch's or
        numpy's or its name; None keeps the input's. `_stacklevel` does nothing.

        Shape: any -> the same
        """
        message = messages.Softmax(dim=_axis("softmax", dim), dtype=dtype_name("softmax", dtype))
        return self._activate("softmax", messages.ActivateOperator(softmax=message), input, timeout)

    def softmin(
        self,
        input: TensorLike,
        dim: SupportsIndex | None = None,
        _stacklevel: SupportsIndex = 3,
        dtype: DTypeLike | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """softmax(-x) along dim, of -x cast to `dtype` first.

        `dim` and `dtype` may be None, as for softmax; `_stacklevel` does nothing.

        Shape: any -> the same
        """
        message = messages.Softmin(dim=_axis("softmin", dim), dtype=dtype_name("softmin", dtype))
        return self._activate("softmin", messages.ActivateOperator(softmin=message), input, timeout)

    def log_softmax(
        self,
        input: TensorLike,
        dim: SupportsIndex | None = None,
        _stacklevel: SupportsIndex = 3,
        dtype: DTypeLike | None = None,
        *,
        timeout: float | None = None,
    ) -> Answer_co:
        """log(softmax(x)) along dim, of x cast to `dtype` first.

        `dim` and `dtype` may be None, as for softmax; `_stacklevel` does nothing.

        Shape: any -> the same
        """
        message = messages.LogSoftmax(dim=_axis("log_softmax", dim), dtype=dtype_name("log_softmax", dtype))
        return self._activate("log_softmax", messages.ActivateOperator(log_softmax=message), input, timeout)

    def gumbel_softmax(
        self,
        logits: TensorLike,
        tau: SupportsFloat = 1,
        hard: bool = False,
        eps: SupportsFloat = 1e-10,
        dim: SupportsIndex = -1,
        *,
        seed: SupportsIndex | None = None,
        timeout: float | None = None,
    ) -> Answer_co:
        """softmax((x + g) / tau) along dim with g drawn from Gumbel(0, 1); one-hot at the maximum with `hard`.

        The noise of element i depends on (seed, i) alone; `seed` None is a fresh one; `eps` does nothing, as in torch.

        Shape: any -> the same
        """
        message = messages.GumbelSoftmax(
            tau=number("gumbel_softmax", "tau", tau),
            hard=flag("gumbel_softmax", "hard", hard),
            dim=integer("gumbel_softmax", "dim", dim),
            seed=seed_of("gumbel_softmax", seed),
        )
        operator = messages.ActivateOperator(gumbel_softmax=message)
        return self._activate("gumbel_softmax", operator, logits, timeout)

    def _activate(
        self, function: str, operator: messages.ActivateOperator, input: TensorLike, timeout: float | None
    ) -> Answer_co:
        return self.call(Request("activate", operator, {"input": input}, ("output",), function, timeout))


def _axis(function: str, dim: SupportsIndex | None) -> int | None:
    return None if dim is None else integer(function, "dim", dim)
