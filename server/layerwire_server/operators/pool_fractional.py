"""Fractional max pooling: windows whose uneven steps are decided by samples that the call brings.

It knows torch's kernels and where their arithmetic leaves the input; nothing of where samples come from.
Source: Graham, Fractional Max-Pooling, 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F

from layerwire.errors import invalid
from layerwire.wire.dtypes import ITEMSIZES, TensorSpec
from layerwire_server.operators.checks import check_dtypes, check_shape
from layerwire_server.operators.operator import Input, Merge, Placement, Specs, Tensors
from layerwire_server.operators.spatial import PlaneOperator, Reader, Sizes


@dataclass(frozen=True)
class FractionalMaxPool(PlaneOperator):
    """Maximum over windows of uneven steps. Shape: [N, C, L...] or [C, L...] -> the same with L' = output_size.

    Exactly one of output_size and output_ratio is there.
    """

    name: ClassVar[str] = "fractional_max_pool"
    family: ClassVar[str] = "pool"
    weight: ClassVar[float] = 300.0
    inputs: ClassVar[tuple[Input, ...]] = (Input("input"), Input("samples"))
    value_inputs: ClassVar[tuple[str, ...]] = ("samples",)

    kernel_size: Sizes
    output_size: Sizes | None
    output_ratio: tuple[float, ...] | None
    return_indices: bool

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """The operator of a FractionalMaxPool message."""
        reader = Reader.of(cls.name, message, least_dims=2)
        kernel_size = reader.sizes("kernel_size", least=1)
        if message.output_size and message.output_ratio:
            raise invalid(reader.title, "output_ratio", "must be left out where output_size is given")
        if not message.output_ratio:
            return cls(kernel_size, reader.sizes("output_size", least=1), None, message.return_indices)
        ratios = tuple(message.output_ratio)
        reader.check("output_ratio", ratios, -math.inf, math.inf)
        if not all(0 < ratio < 1 for ratio in ratios):
            raise invalid(reader.title, "output_ratio", f"must be above 0 and below 1, got {list(ratios)}")
        ratios = ratios if len(ratios) == reader.dims else ratios * reader.dims
        return cls(kernel_size, None, ratios, message.return_indices)

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel_size)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The maxima, and their positions if wanted."""
        return ("output", "indices") if self.return_indices else ("output",)

    def sizes(self, extents: Sizes) -> Sizes:
        """The output's extents for the input's."""
        if self.output_ratio is None:
            assert self.output_size is not None
            return self.output_size
        return tuple(int(extent * ratio) for extent, ratio in zip(extents, self.output_ratio, strict=True))

    def check(self, specs: Specs) -> None:
        """Windows fit, their starts are exact in the input's dtype, and samples are there for every plane."""
        spec = specs[0]
        assert spec is not None
        self.check_input(spec)
        check_dtypes(self, specs)
        dims = self.spatial_dims
        leading = spec.shape[:-dims] if len(spec.shape) == dims + 2 else (1, spec.shape[0])
        check_shape(self, "samples", specs[1], (*leading, dims))
        self._check_windows(spec)

    def _check_windows(self, spec: TensorSpec) -> None:
        extents = self.extents(spec)
        sizes = self.sizes(extents)
        if min(sizes) < 1:
            raise self.invalid("output_ratio", f"must leave at least one element, got {list(sizes)}")
        for extent, kernel, size in zip(extents, self.kernel_size, sizes, strict=True):
            most = extent - kernel + 1 - (self.spatial_dims == 3)  # the 3-d kernel wants an element more than it needs
            if most < 1:
                raise self.invalid("kernel_size", f"must leave steps within the input's {list(extents)}, got {kernel}")
            if size > most:
                field = "output_size" if self.output_ratio is None else "output_ratio"
                raise self.invalid(field, f"must give at most {most} for kernel_size {kernel}, got {size}")

    def placement(self, specs: Specs) -> Placement:
        """By rows; alone if unbatched, where input has C planes but samples are [1, C, spatial_dims]."""
        spec = specs[0]
        placement = super().placement(specs)
        if placement.axes != 2:
            return Placement(Merge.ALONE, self)
        return placement._replace(operator=replace(self, output_size=self.sizes(self.extents(spec)), output_ratio=None))

    def output_bytes_bound(self, specs: Specs) -> int:
        """Exactly the output's, with int64 indices where they are returned."""
        assert specs[0] is not None
        itemsize = ITEMSIZES[specs[0].dtype] + 8 * (len(self.outputs) - 1)
        return max(self.planes(specs[0]), 1) * math.prod(self.sizes(self.extents(specs[0]))) * itemsize

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """One an element of a window."""
        return math.prod(outputs[0].shape) * math.prod(self.kernel_size)

    def check_values(self, tensors: Tensors) -> None:
        """Every sample is in [0, 1), and leaves every window in the input: torch reads on or fails otherwise.

        torch computes where windows start in the input's dtype. Where that rounds up, as bfloat16 does from 129
        elements, the last window but one can leave the input.
        """
        planes, samples = tensors
        assert planes is not None
        assert samples is not None
        self._check_samples(samples, (samples >= 0) & (samples < 1), "must be in [0, 1)")
        extents = tuple(planes.shape[-self.spatial_dims :])
        order = (
            (1, 0) if self.spatial_dims == 2 else (0, 1, 2)
        )  # of axes among samples: width first in 2-d, last in 3-d
        for column, extent, kernel, size in zip(order, extents, self.kernel_size, self.sizes(extents), strict=True):
            if size > 1:
                inside = torch.ones_like(samples, dtype=torch.bool)
                inside[..., column] = _last_step(samples[..., column], extent - kernel, size - 1) <= extent - kernel
                self._check_samples(samples, inside, "must leave windows in the input as its dtype rounds them")

    def _check_samples(self, samples: torch.Tensor, right: torch.Tensor, rule: str) -> None:
        if not right.all():
            first = right.logical_not().nonzero()[0].tolist()
            raise self.invalid("samples", f"{rule}, got {samples[tuple(first)].item()} at {first}")

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.fractional_max_pool2d, 3d."""
        planes, samples = tensors
        assert planes is not None
        assert samples is not None
        if samples.dim() == 2:  # rows of a joined batch, which is an unbatched input
            samples = samples[None]
        size = self.sizes(tuple(planes.shape[-self.spatial_dims :]))
        answer = getattr(F, self.title)(
            planes, self.kernel_size, size, return_indices=self.return_indices, _random_samples=samples
        )
        return tuple(answer) if self.return_indices else (answer,)


def _last_step(samples: torch.Tensor, room: int, steps: int) -> torch.Tensor:
    """Where the last window but one starts, in the samples' arithmetic; NaN where that overflows.

    Source: generate_intervals in ATen/native/FractionalMaxPooling.h.
    """
    numbers = torch.tensor([room, steps, steps - 1], dtype=torch.float64).to(samples.dtype)
    step = numbers[0] / numbers[1]
    return ((numbers[2] + samples) * step).floor().double() - (samples * step).floor().double()
