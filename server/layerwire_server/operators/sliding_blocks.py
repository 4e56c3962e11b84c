"""Sliding blocks of planes as columns, unfold, and their sums put back, fold.

It knows torch's im2col and col2im; nothing of weights, which neither takes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators.checks import check_empty
from layerwire_server.operators.convolution import MAX_PADDING
from layerwire_server.operators.operator import BOOL, FLOATS, Merge, Operator, Placement, Specs
from layerwire_server.operators.spatial import Reader, Sizes
from layerwire_server.operators.window import Window


@dataclass(frozen=True)
class SlidingBlocks(Operator):
    """What unfold and fold share: a block that slides over the two axes of a plane. Samples are rows."""

    family: ClassVar[str] = "convolve"
    weight: ClassVar[float] = 120.0
    emulated_weight: ClassVar[float] = 2.0
    dtypes: ClassVar[frozenset[int]] = FLOATS | BOOL
    trailing_axes: ClassVar[int]  # axes of one sample
    layout: ClassVar[str]

    block: Window

    def check_input(self, spec: TensorSpec) -> None:
        """Checks the input's rank, and that its sizes are positive but for N.

        Raises:
            InvalidArgumentError: naming `input`.
        """
        if len(spec.shape) - self.trailing_axes not in (0, 1):
            raise self.invalid("input", f"must be {self.layout}, got shape {list(spec.shape)}")
        if 0 in spec.shape[-self.trailing_axes :]:
            raise self.invalid("input", f"must not be empty but for the batch axis, got shape {list(spec.shape)}")
        check_empty(self, spec)

    def check_block(self, extents: Sizes) -> None:
        """Checks that the block lies within the padded plane.

        Raises:
            InvalidArgumentError: naming `kernel_size` or `dilation`.
        """
        for extent, kernel, padding, dilation in zip(
            extents, self.block.kernel_size, self.block.padding, self.block.dilation, strict=True
        ):
            padded, span = extent + 2 * padding, dilation * (kernel - 1) + 1
            if kernel > padded:
                raise self.invalid("kernel_size", f"must be at most {padded} for {extent} elements, got {kernel}")
            if span > padded:
                rule = f"must leave the block within {padded} elements, got {dilation} for kernel_size {kernel}"
                raise self.invalid("dilation", rule)

    def placement(self, specs: Specs) -> Placement:
        """By samples; an unbatched input is one."""
        spec = specs[0]
        assert spec is not None
        if 0 in spec.shape:  # nothing to compute
            return Placement(Merge.ALONE, self)
        return Placement(Merge.ROWS, self, len(spec.shape) - self.trailing_axes)

    def output_bytes_bound(self, specs: Specs) -> int:
        """Exactly the output's; that of one sample where there is none, for torch computes its shape all the same."""
        spec = specs[0]
        assert spec is not None
        samples = spec.shape[0] if len(spec.shape) > self.trailing_axes else 1
        return max(samples, 1) * self.sample_elements(spec) * ITEMSIZES[spec.dtype]

    @property
    def window(self) -> tuple[Sizes, Sizes, Sizes, Sizes]:
        """kernel_size, dilation, padding and stride, as both functions take them."""
        return self.block.kernel_size, self.block.dilation, self.block.padding, self.block.stride

    @abstractmethod
    def sample_elements(self, spec: TensorSpec) -> int:
        """Elements of a sample's output."""


@dataclass(frozen=True)
class Unfold(SlidingBlocks):
    """Blocks as columns. Shape: [N, C, H, W] or [C, H, W] -> [N, C KH KW, L] or [C KH KW, L], L the blocks' number."""

    name: ClassVar[str] = "unfold"
    trailing_axes: ClassVar[int] = 3
    layout: ClassVar[str] = "[C, H, W] or [N, C, H, W]"

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of an Unfold message."""
        return cls(_read_block(Reader(cls.name, 2, message)))

    def check(self, specs: Specs) -> None:
        """The block fits."""
        assert specs[0] is not None
        self.check_input(specs[0])
        self.check_block(specs[0].shape[-2:])

    def sample_elements(self, spec: TensorSpec) -> int:
        """A block for each of its places."""
        places = self.block.places(spec.shape[-2:])
        return spec.shape[-3] * math.prod(self.block.kernel_size) * math.prod(places)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """One an element of the output, which is copied."""
        return math.prod(outputs[0].shape)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.unfold."""
        assert tensors[0] is not None
        return (F.unfold(tensors[0], *self.window),)


@dataclass(frozen=True)
class Fold(SlidingBlocks):
    """Sums of blocks. Shape: [N, C KH KW, L] or [C KH KW, L] -> [N, C, H, W] or [C, H, W], H, W = output_size."""

    name: ClassVar[str] = "fold"
    trailing_axes: ClassVar[int] = 2
    layout: ClassVar[str] = "[C KH KW, L] or [N, C KH KW, L]"

    output_size: Sizes

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of a Fold message."""
        reader = Reader(cls.name, 2, message)
        return cls(_read_block(reader), reader.sizes("output_size", least=1))

    def check(self, specs: Specs) -> None:
        """The input is made of as many blocks as fit in the output."""
        spec = specs[0]
        assert spec is not None
        self.check_input(spec)
        self.check_block(self.output_size)
        elements = math.prod(self.block.kernel_size)
        if spec.shape[-2] % elements:
            rule = f"must divide, multiplied, input's {spec.shape[-2]} rows, got {list(self.block.kernel_size)}"
            raise self.invalid("kernel_size", rule)
        places = self.block.places(self.output_size)
        if spec.shape[-1] != math.prod(places):
            rule = f"must have {math.prod(places)} columns, one for each of {list(places)} blocks"
            raise self.invalid("input", f"{rule}, got shape {list(spec.shape)}")

    def sample_elements(self, spec: TensorSpec) -> int:
        """Planes of `output_size`."""
        return spec.shape[-2] // math.prod(self.block.kernel_size) * math.prod(self.output_size)

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """One an element of the input, which is added, and one an output, which may be far more."""
        assert specs[0] is not None
        return math.prod(specs[0].shape) + math.prod(outputs[0].shape)

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.fold."""
        assert tensors[0] is not None
        return (F.fold(tensors[0], self.output_size, *self.window),)


def _read_block(reader: Reader) -> Window:
    """The block in a message; raises InvalidArgumentError if a size is out of range, whatever the input."""
    kernel_size = reader.sizes("kernel_size", least=1)
    dilation = reader.sizes("dilation", least=1, default=1)
    # A block of one element has no gaps: equal meaning is to be an equal value.
    dilation = tuple(1 if kernel == 1 else gap for kernel, gap in zip(kernel_size, dilation, strict=True))
    padding = reader.sizes("padding", least=0, most=MAX_PADDING, default=0)
    stride = reader.sizes("stride", least=1, default=1)
    return Window(kernel_size, stride, padding, dilation, ceil_mode=False)
