"""What an activation is that treats each element by itself: torch's function of the same name, and scalars.

It knows how such functions share a batch; not which there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch.nn import functional as F

from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators.operator import Merge, Operator, Placement, Specs
from layerwire_server.operators.scalars import check_ranges, read

_OUTPUT_DTYPES: dict[tuple[type[Operator], int], int] = {}  # by operator and dtype of the input


@dataclass(frozen=True)
class Pointwise(Operator):
    """The function in torch.nn.functional of its name, element by element, with its fields as keyword arguments."""

    family = "activate"
    element_operations: ClassVar[int] = 1

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        return cls(**read(cls, message))

    def check(self, specs: Specs) -> None:
        """See Operator."""
        assert specs[0] is not None
        check_ranges(self, specs[0].dtype)

    def infer(self, specs: Specs) -> tuple[TensorSpec, ...]:
        """An output is of its input's shape; torch is asked for the dtype, once for each that comes in.

        Callers may send another shape, or another slope, with every call.
        """
        first = specs[0]
        assert first is not None
        dtype = _OUTPUT_DTYPES.get((type(self), first.dtype))
        if dtype is None:
            (output,) = super().infer(specs)
            dtype = _OUTPUT_DTYPES[type(self), first.dtype] = output.dtype
        return (TensorSpec(dtype, first.shape),)

    def placement(self, specs: Specs) -> Placement:
        """See Operator."""
        return Placement(Merge.ELEMENTWISE, self)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """See Operator."""
        return math.prod(outputs[0].shape) * self.element_operations

    def output_bytes_bound(self, specs: Specs) -> int:
        """Integers become float32 where the answer is a fraction."""
        assert specs[0] is not None
        return math.prod(specs[0].shape) * max(ITEMSIZES[specs[0].dtype], 4)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """See Operator."""
        return (getattr(F, self.name)(tensors[0], **vars(self)),)
