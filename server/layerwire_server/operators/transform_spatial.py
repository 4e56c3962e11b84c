"""Transforms of planes: pad, and upsample to other sizes.

It knows torch's modes of both, and what each costs; nothing of channels beyond that they are there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch.nn import functional as F

from layerwire.errors import invalid
from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import DTYPES, ITEMSIZES, MAX_AXES, TensorSpec
from layerwire_server.operators.operator import FLOATS, INTEGERS, Operator, Specs
from layerwire_server.operators.scalars import POSITIVE, comparable
from layerwire_server.operators.spatial import MAX_SIZE
from layerwire_server.operators.transform import Shape, Transform, check_holds

_UINT8 = DTYPES["uint8"]
_FULL_FLOATS = frozenset((DTYPES["float32"], DTYPES["float64"]))

PAD_MODES = {
    program_pb2.PAD_MODE_UNSPECIFIED: "constant",
    program_pb2.PAD_MODE_CONSTANT: "constant",
    program_pb2.PAD_MODE_REFLECT: "reflect",
    program_pb2.PAD_MODE_REPLICATE: "replicate",
    program_pb2.PAD_MODE_CIRCULAR: "circular",
}


@dataclass(frozen=True)
class Pad(Transform):
    """Elements added at the ends of the last axes, or removed. `pad` has pairs (before, after), last axis first."""

    name = "pad"
    moved_weight = 15.0
    pad: Shape
    mode: str = "constant"
    value: float = 0.0

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        pad, mode = tuple(message.pad), PAD_MODES.get(message.mode)
        if len(pad) % 2 or len(pad) > 2 * MAX_AXES:
            raise invalid(cls.name, "pad", f"must have pairs, at most {MAX_AXES}, got {len(pad)} values")
        if any(abs(amount) > MAX_SIZE for amount in pad):
            raise invalid(cls.name, "pad", f"must be from {-MAX_SIZE} to {MAX_SIZE}, got {list(pad)}")
        if mode is None:
            raise invalid(cls.name, "mode", f"must be one of PadMode, got {message.mode}")
        if mode != "constant" and not 1 <= len(pad) // 2 <= 3:
            raise invalid(cls.name, "pad", f"must have 1 to 3 pairs for mode {mode}, got {list(pad)}")
        if mode != "constant" and message.value != 0:
            raise invalid(cls.name, "value", f"must be left out for mode {mode}, got {message.value}")
        return cls(pad, mode, comparable(message.value) if mode == "constant" else 0.0)

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """See Operator; what is mirrored or repeated is looked up by kernels, the rest is copied."""
        if self.mode in ("constant", "circular"):
            return self.dtypes
        return FLOATS if device_type == "cuda" else FLOATS | INTEGERS

    def check(self, specs: Specs) -> None:
        """A constant is one that the dtype holds."""
        assert specs[0] is not None
        if self.mode == "constant":
            check_holds(self, "value", self.value, specs[0].dtype)
        super().check(specs)

    def output_shape(self, specs: Specs) -> Shape:
        """See Transform."""
        assert specs[0] is not None
        shape = specs[0].shape
        self._check_layout(shape, len(self.pad) // 2)
        sizes = list(shape)
        for axis, before, after in self._pairs(shape):
            self._check_amounts(shape, axis, before, after)
            sizes[axis] += before + after
        return tuple(sizes)

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """Rows stay unless some are added or removed."""
        grows = any(axis == 0 and (before or after) for axis, before, after in self._pairs(shapes[0]))
        return None if grows else multiples[0]

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.pad."""
        assert tensors[0] is not None
        value = self.value if self.mode == "constant" else None
        return (F.pad(tensors[0], self.pad, self.mode, value),)

    def _pairs(self, shape: Shape) -> list[tuple[int, int, int]]:
        """Axis, before, after."""
        pairs = zip(self.pad[::2], self.pad[1::2], strict=True)
        return [(len(shape) - 1 - index, *pair) for index, pair in enumerate(pairs)]

    def _check_layout(self, shape: Shape, pairs: int) -> None:
        if self.mode == "constant":
            if pairs > len(shape):
                raise self.invalid("pad", f"must have at most a pair an axis of {list(shape)}, got {list(self.pad)}")
            return
        if len(shape) - pairs not in (1, 2):
            rule = f"must have 1 or 2 axes before the {pairs} padded ones for mode {self.mode}, got {list(shape)}"
            raise self.invalid("input", rule)
        if 0 in shape[len(shape) - pairs - 1 :]:
            rule = f"must not be empty but for the batch axis for mode {self.mode}, got shape {list(shape)}"
            raise self.invalid("input", rule)

    def _check_amounts(self, shape: Shape, axis: int, before: int, after: int) -> None:
        """What is removed is there, and what is mirrored or repeated too.

        torch lets mode circular repeat more than is left: it then answers with memory that nobody wrote.
        """
        rest = shape[axis] + min(before, 0) + min(after, 0)
        least = 0 if self.mode == "constant" else 1
        if rest < least:
            raise self.invalid("pad", f"must leave at least {least} of {shape[axis]}, got {[before, after]}")
        most = {"reflect": shape[axis] - 1, "circular": rest}.get(self.mode, MAX_SIZE)
        if max(before, after) > most:
            raise self.invalid("pad", f"must be at most {most} for mode {self.mode}, got {[before, after]}")


class Mode(NamedTuple):
    """A way to find values between others.

    Attributes:
        name: torch's.
        spatial_dims: how many spatial axes it is for.
        dtypes: that torch has it for on CPU; `cuda_dtypes` on CUDA.
        operations: floating-point operations an element of the output.
        weight: what one of them costs, as Operator's.
        corners: whether it has align_corners.
        reach: elements on both sides that antialias looks at, times what it shrinks by; 0 where there is no antialias.
    """

    name: str
    spatial_dims: tuple[int, ...]
    dtypes: frozenset[int]
    cuda_dtypes: frozenset[int]
    operations: int
    weight: float
    corners: bool
    reach: int


_BYTES = FLOATS | {_UINT8}
_NEAREST = Mode("nearest", (1, 2, 3), _BYTES, _BYTES, 1, 60.0, corners=False, reach=0)

UPSAMPLE_MODES = {
    program_pb2.UPSAMPLE_MODE_UNSPECIFIED: _NEAREST,
    program_pb2.UPSAMPLE_MODE_NEAREST: _NEAREST,
    program_pb2.UPSAMPLE_MODE_NEAREST_EXACT: _NEAREST._replace(name="nearest-exact"),
    program_pb2.UPSAMPLE_MODE_LINEAR: Mode("linear", (1,), FLOATS, FLOATS, 3, 35.0, corners=True, reach=0),
    program_pb2.UPSAMPLE_MODE_BILINEAR: Mode("bilinear", (2,), _BYTES, FLOATS, 9, 15.0, corners=True, reach=1),
    program_pb2.UPSAMPLE_MODE_TRILINEAR: Mode("trilinear", (3,), FLOATS, FLOATS, 21, 20.0, corners=True, reach=0),
    program_pb2.UPSAMPLE_MODE_BICUBIC: Mode("bicubic", (2,), _BYTES, FLOATS, 35, 20.0, corners=True, reach=2),
    program_pb2.UPSAMPLE_MODE_AREA: Mode("area", (1, 2, 3), FLOATS, FLOATS, 1, 300.0, corners=False, reach=0),
}
_ANTIALIAS_WEIGHT = 40.0


@dataclass(frozen=True)
class Upsample(Transform):
    """Other sizes of the spatial axes. Shape: [N, C, L...] -> [N, C, L'...]."""

    name = "upsample"
    emulated_weight = 2.0
    mode: Mode
    size: Shape = ()
    scale_factor: tuple[float, ...] = ()
    align_corners: bool = False
    recompute_scale_factor: bool = False
    antialias: bool = False

    @classmethod
    def from_message(cls, message: Any) -> Self:
        """See Operator."""
        mode = UPSAMPLE_MODES.get(message.mode)
        if mode is None:
            raise invalid(cls.name, "mode", f"must be one of UpsampleMode, got {message.mode}")
        size, scale_factor = tuple(message.size), tuple(message.scale_factor)
        if bool(size) == bool(scale_factor):
            rule = f"or scale_factor must be given, and not both, got {list(size)} and {list(scale_factor)}"
            raise invalid(cls.name, "size", rule)
        if not all(1 <= extent <= MAX_SIZE for extent in size):
            raise invalid(cls.name, "size", f"must be from 1 to {MAX_SIZE}, got {list(size)}")
        if not all(POSITIVE.holds(factor) for factor in scale_factor):
            raise invalid(cls.name, "scale_factor", f"{POSITIVE.words}, got {list(scale_factor)}")
        for field, values in (("size", size), ("scale_factor", scale_factor)):
            if len(values) > 1 and len(values) not in mode.spatial_dims:
                rule = f"must have 1 value, or one for each spatial axis of mode {mode.name}, got {len(values)}"
                raise invalid(cls.name, field, rule)
        if message.HasField("align_corners") and not mode.corners:
            raise invalid(cls.name, "align_corners", f"must be left out for mode {mode.name}")
        if message.recompute_scale_factor and size:
            raise invalid(cls.name, "recompute_scale_factor", "must be left out or false where size is given")
        if message.antialias and not mode.reach:
            raise invalid(cls.name, "antialias", f"must be left out or false for mode {mode.name}")
        return cls(mode, size, scale_factor, message.align_corners, message.recompute_scale_factor, message.antialias)

    def dtypes_on(self, device_type: str) -> frozenset[int]:
        """See Operator."""
        if device_type == "cuda":
            return self.mode.cuda_dtypes
        return self.mode.dtypes & (_FULL_FLOATS | {_UINT8}) if self.antialias else self.mode.dtypes

    def output_shape(self, specs: Specs) -> Shape:
        """See Transform."""
        assert specs[0] is not None
        shape = specs[0].shape
        dims = len(shape) - 2
        if dims not in self.mode.spatial_dims:
            allowed = " or ".join(str(dims + 2) for dims in self.mode.spatial_dims)
            raise self.invalid("input", f"must have {allowed} axes for mode {self.mode.name}, got shape {list(shape)}")
        if 0 in shape[1:]:
            raise self.invalid("input", f"must not be empty but for the batch axis, got shape {list(shape)}")
        return (*shape[:2], *self._extents(shape[2:]))

    def operations(self, specs: Specs, outputs: tuple[TensorSpec, ...]) -> int:
        """Antialias goes along one axis after the other; area takes each element about once."""
        assert specs[0] is not None
        shape, extents = specs[0].shape, outputs[0].shape[2:]
        planes = math.prod(shape[:2])
        if self.antialias:
            (height, width), (rows, columns) = shape[2:], extents
            across, down = self._taps(width, columns), self._taps(height, rows)
            return planes * columns * 2 * (height * across + rows * down)
        if self.mode.name == "area":
            return planes * math.prod(
                size + extent - math.gcd(size, extent) for size, extent in zip(shape[2:], extents, strict=True)
            )
        return planes * math.prod(extents) * self.mode.operations

    def work(self, specs: Specs, operations: int) -> float:
        """By the mode."""
        weight = _ANTIALIAS_WEIGHT if self.antialias else self.mode.weight
        return super().work(specs, operations) / self.weight * weight

    def output_bytes_bound(self, specs: Specs) -> int:
        """The output's, and what torch keeps between two axes and as tables of weights; at least for one sample."""
        assert specs[0] is not None
        shape, dtype = specs[0].shape, specs[0].dtype
        extents, samples = self._extents(shape[2:]), max(shape[0], 1)
        nbytes = samples * shape[1] * math.prod(extents) * ITEMSIZES[dtype]
        if self.antialias or (dtype == _UINT8 and self.mode.reach):
            nbytes += samples * max(shape[1], 4) * shape[2] * extents[1] * ITEMSIZES[dtype]
            tables = zip(shape[2:], extents, strict=True)
            nbytes += sum(extent * 8 * (self._taps(size, extent) + 3) for size, extent in tables)
        return nbytes

    def rows_multiple(self, shapes: Sequence[Shape], multiples: Sequence[int]) -> int | None:
        """Planes don't know each other."""
        return multiples[0]

    def run(self, *tensors: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """torch.nn.functional.interpolate."""
        assert tensors[0] is not None
        shape = tuple(tensors[0].shape)
        dims = len(shape) - 2
        if shape[0] == 0:  # torch's nearest raises a TypeError for it on the meta device
            return (tensors[0].reshape(*shape[:2], *self._extents(shape[2:])),)
        answer = F.interpolate(
            tensors[0],
            list(self._each(self.size, dims)) or None,
            list(self._each(self.scale_factor, dims)) or None,
            self.mode.name,
            self.align_corners if self.mode.corners else None,
            self.recompute_scale_factor or None,
            self.antialias,
        )
        return (answer,)

    def _extents(self, extents: Shape) -> Shape:
        """The output's spatial sizes."""
        dims = len(extents)
        for field in ("size", "scale_factor"):
            values = getattr(self, field)
            if len(values) not in (0, 1, dims):
                raise self.invalid(field, f"must have 1 or {dims} values, got {len(values)}")
        if self.size:
            return self._each(self.size, dims)
        factors = self._each(self.scale_factor, dims)
        scaled = [extent * factor for extent, factor in zip(extents, factors, strict=True)]
        if not all(1 <= extent <= MAX_SIZE for extent in scaled):
            rule = f"must give sizes from 1 to {MAX_SIZE} for {list(extents)}, got {list(self.scale_factor)}"
            raise self.invalid("scale_factor", rule)
        return tuple(map(int, scaled))

    def _taps(self, size: int, extent: int) -> int:
        """Most elements that antialias looks at for one: those within reach on both sides."""
        return 2 * self.mode.reach * max(-(-size // extent), 1) + 1

    @staticmethod
    def _each(values: tuple[Any, ...], dims: int) -> tuple[Any, ...]:
        return values if len(values) == dims else values * dims


OPERATORS: tuple[type[Operator], ...] = (Pad, Upsample)
