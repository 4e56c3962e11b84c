"""Normalisations of channels that know running statistics: batch_norm and instance_norm.

It knows shapes and kernels; nothing of where running statistics are kept, and it changes none that it is given.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch.nn import functional as F

from layerwire.wire.dtypes import TensorSpec
from layerwire_server.operators.checks import check_empty, check_mixed_dtypes, check_shape
from layerwire_server.operators.operator import Input, Merge, Operator, Placement, Specs, Tensors
from layerwire_server.operators.scalars import FINITE, POSITIVE, read, scalar

_STATISTICS = ("output", "batch_mean", "batch_var", "running_mean", "running_var")


@dataclass(frozen=True)
class ByChannel(Operator):
    """What both have: the tensors of a channel each, and the scalars."""

    family = "normalize"
    inputs = (
        Input("input"),
        *(Input(name, required=False, shared=True) for name in ("weight", "bias", "running_mean", "running_var")),
    )
    value_inputs = ("running_var",)
    momentum: float = scalar(FINITE, 0.1)
    eps: float = scalar(POSITIVE, 1e-5)

    def check(self, specs: Specs) -> None:
        """See Operator."""
        check_mixed_dtypes(self, specs)
        x, weight, bias, mean, var = specs
        assert x is not None
        if len(x.shape) < 2:
            raise self.invalid("input", f"must have 2 or more axes, [N, C, ...], got shape {list(x.shape)}")
        check_empty(self, x)
        if (mean is None) != (var is None):
            absent, other = ("running_mean", "running_var") if mean is None else ("running_var", "running_mean")
            raise self.invalid(absent, f"is required where {other} is given")
        for role, spec in zip(self.inputs[1:], (weight, bias, mean, var), strict=True):
            check_shape(self, role.name, spec, x.shape[1:2])

    def check_values(self, tensors: Tensors) -> None:
        """See Operator."""
        var = tensors[4]
        if var is not None and (wrong := torch.nonzero(var < 0)).numel():
            at = int(wrong[0, 0])
            raise self.invalid("running_var", f"must be at least 0, got {var[at].item()} at [{at}]")

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """As many as it takes to find the statistics and to use them, or to use them alone."""
        return (9 if self.finds_statistics else 3) * math.prod(outputs[0].shape)

    @property
    @abstractmethod
    def finds_statistics(self) -> bool:
        """Whether statistics are the input's own."""


@dataclass(frozen=True)
class BatchNorm(ByChannel):
    """batch_norm; evaluation takes samples as rows, training is alone with its batch."""

    name = "batch_norm"
    training: bool = False
    return_statistics: bool = False

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        scalars = read(cls, message)
        operator = cls(**scalars, training=message.training, return_statistics=message.return_statistics)
        if operator.return_statistics and not operator.training:
            raise operator.invalid("return_statistics", "must be false unless training is true, got true")
        return operator

    @property
    def finds_statistics(self) -> bool:
        """In training."""
        return self.training

    @property
    def outputs(self) -> tuple[str, ...]:
        """The running ones come only where running ones were given."""
        return _STATISTICS if self.return_statistics else _STATISTICS[:1]

    def check(self, specs: Specs) -> None:
        """See Operator."""
        super().check(specs)
        x, running_mean = specs[0], specs[3]
        assert x is not None
        if not self.training and running_mean is None:
            raise self.invalid("running_mean", "is required unless training is true")
        if self.training and x.shape[0] * math.prod(x.shape[2:]) == 1:
            raise self.invalid("input", f"must have more than 1 value a channel in training, got {list(x.shape)}")

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        if self.training:
            return Placement(Merge.ALONE, self)
        return Placement(Merge.ROWS, replace(self, momentum=0.1), 1)

    def output_bytes_bound(self, specs: Specs) -> int:
        """See Operator."""
        assert specs[0] is not None
        return super().output_bytes_bound(specs) + 16 * specs[0].shape[1]

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x, weight, bias, mean, var = _unscaled_if_empty(tensors)
        assert x is not None
        if not self.training:
            return (F.batch_norm(x, mean, var, weight, bias, eps=self.eps),)
        if not self.return_statistics or mean is None or var is None:
            mean = var = None
        else:
            mean, var = mean.clone(), var.clone()  # torch updates them in place
        output = F.batch_norm(x, mean, var, weight, bias, training=True, momentum=self.momentum, eps=self.eps)
        if not self.return_statistics:
            return (output,)
        dtype = next((tensor.dtype for tensor in tensors[1:] if tensor is not None), x.dtype)
        statistics = tuple(statistic.to(dtype) for statistic in _statistics(x))
        return (output, *statistics) if mean is None or var is None else (output, *statistics, mean, var)


@dataclass(frozen=True)
class InstanceNorm(ByChannel):
    """instance_norm; running statistics take part only if the input's own don't.

    Otherwise torch would update them, which changes nothing in the answer.
    """

    name = "instance_norm"
    use_input_stats: bool = True

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        use_input_stats = message.use_input_stats if message.HasField("use_input_stats") else True
        return cls(**read(cls, message), use_input_stats=use_input_stats)

    @property
    def finds_statistics(self) -> bool:
        """By its parameter."""
        return self.use_input_stats

    def check(self, specs: Specs) -> None:
        """See Operator."""
        super().check(specs)
        x, running_mean = specs[0], specs[3]
        assert x is not None
        if not self.use_input_stats and running_mean is None:
            raise self.invalid("running_mean", "is required unless use_input_stats is true")
        if self.use_input_stats and math.prod(x.shape[2:]) == 1:
            raise self.invalid("input", f"must have more than 1 value in a sample's channel, got {list(x.shape)}")

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        return Placement(Merge.ROWS, replace(self, momentum=0.1), 1)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        x, weight, bias, mean, var = _unscaled_if_empty(tensors)
        assert x is not None
        if self.use_input_stats:
            return (F.instance_norm(x, weight=weight, bias=bias, eps=self.eps),)
        # The same function, bit by bit; but instance_norm copies all four tensors once a sample.
        return (F.batch_norm(x, mean, var, weight, bias, eps=self.eps),)


def _unscaled_if_empty(tensors: Tensors) -> Tensors:
    """The tensors, without weight and bias where nothing is to be scaled: torch would read the first, also of none."""
    x, _, _, mean, var = tensors
    return (x, None, None, mean, var) if x is not None and x.numel() == 0 else tensors


def _statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance of each channel, at least in float32; NaN where there are no values."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).transpose(0, 1).flatten(1)
    mean = wide.mean(1)
    return mean, (wide - mean[:, None]).square_().mean(1)
