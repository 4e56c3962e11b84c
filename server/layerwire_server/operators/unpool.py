"""Unpooling: puts pooled values back at given positions of otherwise empty planes.

It knows how positions are checked and written; nothing of the pooling that made them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch

from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES, ITEMSIZES, TensorSpec
from layerwire_server.operators.checks import check_shape
from layerwire_server.operators.operator import Input, Operator, Placement, Specs, Tensors
from layerwire_server.operators.spatial import MAX_STRIDE, PlaneOperator, Reader, Sizes
from layerwire_server.operators.window import read_padding

_INT64 = DTYPES["int64"]


@dataclass(frozen=True)
class MaxUnpool(PlaneOperator):
    """Values at their positions, zero elsewhere; of two at one position, the later in row-major order.

    torch's own max_unpool is not used: with duplicate positions it keeps whichever thread comes last, and on CUDA it
    narrows positions to 32 bits before it checks them. Writing by scatter is also 1.5 to 3 times as fast on the CPU.

    Shape: [N, C, L...] or [C, L...] -> the same with L' = output_size or (L - 1) stride - 2 padding + kernel_size.
    """

    name: ClassVar[str] = "max_unpool"
    family: ClassVar[str] = "unpool"
    weight: ClassVar[float] = 100.0
    inputs: ClassVar[tuple[Input, ...]] = (Input("input"), Input("indices"))
    value_inputs: ClassVar[tuple[str, ...]] = ("indices",)

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    output_size: Sizes | None

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of a MaxUnpool message."""
        reader = Reader.of(cls.name, message)
        kernel_size = reader.sizes("kernel_size", least=1)
        stride = reader.sizes("stride", least=1, most=MAX_STRIDE, default=kernel_size)
        output_size = reader.sizes("output_size", least=1) if message.output_size else None
        return cls(kernel_size, stride, read_padding(reader, kernel_size), output_size)

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_size)

    def sizes(self, extents: Sizes) -> Sizes:
        """The output's extents for the input's."""
        return self._default_sizes(extents) if self.output_size is None else self.output_size

    def check(self, specs: Specs) -> None:
        """Indices go with the input, and the output size with the pooling's parameters."""
        spec, indices = specs
        assert spec is not None
        assert indices is not None
        self.check_input(spec, empty=(0,))
        if indices.dtype != _INT64:
            raise self.invalid("indices", f"must be int64, got {DTYPE_NAMES[indices.dtype]}")
        check_shape(self, "indices", indices, spec.shape)
        defaults = self._default_sizes(self.extents(spec))
        if self.output_size is None:
            if min(defaults) < 1:
                raise self.invalid("padding", f"must leave an output, got {list(self.padding)} for {list(defaults)}")
            return
        for size, default, stride in zip(self.output_size, defaults, self.stride, strict=True):
            if not default - stride < size < default + stride:
                rule = f"must be above {default - stride} and below {default + stride}, got {size}"
                raise self.invalid("output_size", rule)

    def placement(self, specs: Specs) -> Placement:
        """By rows. Only the output size counts then: however it came about, calls of one size go together."""
        ones = (1,) * self.spatial_dims
        size = self.sizes(self.extents(specs[0]))
        operator = replace(self, kernel_size=ones, stride=ones, padding=(0,) * self.spatial_dims, output_size=size)
        return super().placement(specs)._replace(operator=operator)

    def output_bytes_bound(self, specs: Specs) -> int:
        """Exactly the output's."""
        assert specs[0] is not None
        sizes = self.sizes(self.extents(specs[0]))
        return max(self.planes(specs[0]), 1) * math.prod(sizes) * ITEMSIZES[specs[0].dtype]

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """One an element that is read or written."""
        assert specs[0] is not None
        return math.prod(specs[0].shape) + math.prod(outputs[0].shape)

    def check_values(self, tensors: Tensors) -> None:
        """Every index lies in its output plane."""
        values, indices = tensors
        assert values is not None
        assert indices is not None
        if not indices.numel():
            return
        plane = math.prod(self.sizes(tuple(values.shape[-self.spatial_dims :])))
        least, most = indices.aminmax()
        if least >= 0 and most < plane:
            return
        first = ((indices < 0) | (indices >= plane)).nonzero()[0].tolist()
        raise self.invalid("indices", f"must be 0 to {plane - 1}, got {indices[tuple(first)].item()} at {first}")

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """What torch.nn.functional.max_unpool1d, 2d, 3d give where positions differ."""
        values, indices = tensors
        assert values is not None
        assert indices is not None
        extents = tuple(values.shape[-self.spatial_dims :])
        leading, sizes = values.shape[: -self.spatial_dims], self.sizes(extents)
        rows, count = leading.numel(), math.prod(extents)
        # scatter_ would give its gradient to every value at a place, also to those that were written over.
        unordered = values.device.type == "cuda" or (values.requires_grad and count > 0)
        write = write_unordered if unordered else write_in_order
        planes = write(values.reshape(rows, count), indices.reshape(rows, count), math.prod(sizes))
        return (planes.view(*leading, *sizes),)

    def _default_sizes(self, extents: Sizes) -> Sizes:
        return tuple(
            (extent - 1) * stride - 2 * padding + kernel
            for extent, kernel, stride, padding in zip(
                extents, self.kernel_size, self.stride, self.padding, strict=True
            )
        )


def write_in_order(values: torch.Tensor, indices: torch.Tensor, size: int) -> torch.Tensor:
    """Planes with the values at their indices, the last of equal ones: torch's CPU scatter goes along a row in order.

    Shape: [rows, count] twice -> [rows, size].
    """
    return values.new_zeros(values.shape[0], size).scatter_(1, indices, values)


def write_unordered(values: torch.Tensor, indices: torch.Tensor, size: int) -> torch.Tensor:
    """The same where threads write in any order, as on CUDA: each place first learns which value is its last.

    Shape: [rows, count] twice -> [rows, size].
    """
    rows, count = values.shape
    order = torch.arange(count, device=values.device).expand(rows, count)
    last = order.new_full((rows, size), -1).scatter_reduce_(1, indices, order, "amax")
    return values.gather(1, last.clamp_min(0)).masked_fill_(last < 0, 0)


OPERATORS: tuple[type[Operator], ...] = (MaxUnpool,)
