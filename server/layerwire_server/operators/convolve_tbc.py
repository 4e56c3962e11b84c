"""Convolution along time with the batch as the middle axis, conv_tbc.

It knows torch's kernel and what its steps cost; nothing of where weights come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from layerwire.errors import invalid
from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators.checks import check_dtypes, check_empty, check_shape
from layerwire_server.operators.convolution import MAX_PADDING
from layerwire_server.operators.operator import FLOATS, INTEGERS, Input, Merge, Operator, Placement, Specs

# torch multiplies matrices once for each element of the kernel: 1.5 us a step, and 0.5 ns an output that it adds to.
_STEP_WORK = 150_000
_ADDITION_WORK = 50


@dataclass(frozen=True)
class ConvTbc(Operator):
    """Cross-correlation along time.

    Shape: [T, N, C] with weight [K, C, C'] and bias [C'] -> [T + 2 pad - K + 1, N, C'].

    Never merged: the samples of a call don't lie together, for N is the middle axis.
    """

    name: ClassVar[str] = "conv_tbc"
    family: ClassVar[str] = "convolve"
    weight: ClassVar[float] = 1.0
    emulated_weight: ClassVar[float] = 8.0
    inputs: ClassVar[tuple[Input, ...]] = (
        Input("input"),
        Input("weight", shared=True),
        Input("bias", shared=True),
    )
    dtypes: ClassVar[frozenset[int]] = FLOATS | INTEGERS
    cuda_dtypes: ClassVar[frozenset[int] | None] = FLOATS

    pad: int

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of a ConvTbc message."""
        if not 0 <= message.pad <= MAX_PADDING:
            raise invalid(cls.name, "pad", f"must be 0 to {MAX_PADDING}, got {message.pad}")
        return cls(message.pad)

    def check(self, specs: Specs) -> None:
        """Dtypes agree, input, weight and bias go together, and the kernel fits."""
        check_dtypes(self, specs)
        spec, weight, bias = specs
        assert spec is not None
        assert weight is not None
        if len(spec.shape) != 3:
            raise self.invalid("input", f"must be [T, N, C], got shape {list(spec.shape)}")
        if 0 in (spec.shape[0], spec.shape[2]):
            raise self.invalid("input", f"must not be empty but for the batch axis, got shape {list(spec.shape)}")
        check_empty(self, spec)
        if len(weight.shape) != 3 or 0 in weight.shape:
            raise self.invalid("weight", f"must have 3 axes, none of them empty, got {list(weight.shape)}")
        if weight.shape[1] != spec.shape[2]:
            rule = f"must have input's {spec.shape[2]} channels in the middle, got {list(weight.shape)}"
            raise self.invalid("weight", rule)
        check_shape(self, "bias", bias, weight.shape[2:])
        if weight.shape[0] > spec.shape[0] + 2 * self.pad:
            rule = f"must be within {spec.shape[0] + 2 * self.pad} time steps, got {weight.shape[0]}"
            raise self.invalid("weight", rule)

    def placement(self, specs: Specs) -> Placement:
        """Alone."""
        return Placement(Merge.ALONE, self)

    def output_bytes_bound(self, specs: Specs) -> int:
        """Exactly the output's; that of one sample where there is none."""
        spec = specs[0]
        assert spec is not None
        return self._time_steps(specs) * max(spec.shape[1], 1) * self._channels_out(specs) * ITEMSIZES[spec.dtype]

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """A multiply and an add for each weight of an output's kernel."""
        assert specs[0] is not None
        return 2 * self._additions(specs) * specs[0].shape[2]

    def work(self, specs: Specs, operations: int) -> float:
        """Also that of the steps, which is all there is to small matrices."""
        assert specs[1] is not None
        steps = specs[1].shape[0]
        return super().work(specs, operations) + steps * _STEP_WORK + self._additions(specs) * _ADDITION_WORK

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.conv_tbc; for its shape conv1d, which takes no 0.3 ms an element of the kernel."""
        x, weight, bias = tensors
        assert x is not None
        assert weight is not None
        assert bias is not None
        if x.device.type == "meta":
            output = F.conv1d(x.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=self.pad)
            return (output.permute(2, 0, 1),)
        return (F.conv_tbc(x, weight, bias, self.pad),)

    def _time_steps(self, specs: Specs) -> int:
        spec, weight, _ = specs
        assert spec is not None
        assert weight is not None
        return spec.shape[0] + 2 * self.pad - weight.shape[0] + 1

    def _channels_out(self, specs: Specs) -> int:
        assert specs[1] is not None
        return specs[1].shape[2]

    def _additions(self, specs: Specs) -> int:
        """How often an output is added to."""
        spec, weight, _ = specs
        assert spec is not None
        assert weight is not None
        return self._time_steps(specs) * spec.shape[1] * self._channels_out(specs) * weight.shape[0]
