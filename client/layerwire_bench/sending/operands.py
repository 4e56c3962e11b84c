"""The tensors that go with an operator's input: weights, statistics, indices; their shapes where nobody gave one.

It knows torch's rules for these shapes, as tables; neither torch itself nor requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from layerwire_bench.sending.tensors import Array, Random, Shape

_DIMS = re.compile(r"(.*)([123])d")
_KERNEL = 3  # of convolutions whose weight nobody gave, along each axis


@dataclass(frozen=True)
class Asked:
    """What is known of a call before its tensors are there.

    Attributes:
        function: "conv2d".
        shape: of the input.
        given: parameters that were given; of tensors the shapes.
    """

    function: str
    shape: Shape
    given: Mapping[str, Any]

    @property
    def stem(self) -> str:
        """The function without its number of axes."""
        match = _DIMS.fullmatch(self.function)
        return self.function if match is None else match[1]

    @property
    def dims(self) -> int:
        """Its number of spatial axes, 0 where the name has none."""
        match = _DIMS.fullmatch(self.function)
        return 0 if match is None else int(match[2])

    def extent(self, axis: int) -> int:
        """The input's, 1 where it has no such axis; torch will say what it misses."""
        return self.shape[axis] if -len(self.shape) <= axis < len(self.shape) else 1


class Companion(NamedTuple):
    """A tensor that goes with an input.

    Attributes:
        values: how it is drawn, a key of tensors.VALUES.
        shape: its shape where none is given; None: it stays out.
        own: whether each sample has its own, as it does its input; else all share it, as calls of a layer do.
    """

    values: str
    shape: Callable[[Asked], Shape | None] = lambda _asked: None
    own: bool = False


def _features(asked: Asked) -> Shape:
    return (asked.extent(-1), asked.extent(-1))


def _pairs(asked: Asked) -> Shape:
    other = asked.given.get("input2") or asked.shape
    return (asked.extent(-1), asked.extent(-1), other[-1] if other else 1)


def _kernels(asked: Asked) -> Shape:
    channels, groups = asked.extent(-1 - asked.dims), asked.given.get("groups", 1)
    per_group = channels // groups if isinstance(groups, int) and groups > 0 else channels
    return (channels, max(1, per_group), *[_KERNEL] * asked.dims)


def _times(asked: Asked) -> Shape:
    return (_KERNEL, asked.extent(-1), asked.extent(-1))


def _last_of_weight(asked: Asked) -> Shape:
    weight = asked.given.get("weight") or _times(asked)
    return (weight[-1],)


def _statistics(asked: Asked) -> Shape | None:
    own = asked.given.get("training", False) or (
        asked.stem == "instance_norm" and asked.given.get("use_input_stats", True)
    )
    return None if own else (asked.extent(1),)


def _planes(asked: Asked) -> Shape:
    batch = asked.extent(0) if len(asked.shape) == asked.dims + 2 else 1
    return (batch, asked.extent(-1 - asked.dims), asked.dims)


_TABLE: dict[tuple[str, str], Companion] = {  # (function without its axes, parameter)
    ("linear", "weight"): Companion("scaled", _features),
    ("bilinear", "input2"): Companion("normal", lambda asked: asked.shape, own=True),
    ("cosine_similarity", "x2"): Companion("normal", lambda asked: asked.shape, own=True),
    ("bilinear", "weight"): Companion("scaled", _pairs),
    ("conv", "weight"): Companion("scaled", _kernels),
    ("conv_transpose", "weight"): Companion("scaled", _kernels),
    ("conv_tbc", "weight"): Companion("scaled", _times),
    ("conv_tbc", "bias"): Companion("small", _last_of_weight),
    ("prelu", "weight"): Companion("unit", lambda _: (1,)),
    ("max_unpool", "indices"): Companion("indices", lambda asked: asked.shape, own=True),
    ("fractional_max_pool", "_random_samples"): Companion("unit", _planes, own=True),
    **{(norm, "running_mean"): Companion("small", _statistics) for norm in ("batch_norm", "instance_norm")},
    **{(norm, "running_var"): Companion("near one", _statistics) for norm in ("batch_norm", "instance_norm")},
}
_OTHERS = {"weight": Companion("near one"), "bias": Companion("small")}  # of normalisations; biases of all
# lp_pool takes roots of sums of powers, which have no value where they are negative.
_INPUTS = {"lp_pool": "near one"}


def companion(asked: Asked, parameter: str) -> Companion:
    """What is known of a tensor parameter."""
    return _TABLE.get((asked.stem, parameter)) or _OTHERS.get(parameter) or Companion("normal")


def input_values(asked: Asked) -> str:
    """How the input is drawn."""
    return _INPUTS.get(asked.stem, "normal")


def indices(random: Random, asked: Asked) -> Array:
    """Indices for max_unpool as a max pool could have given them: each in a window of its own.

    Source: the output's extents are those of torch.nn.functional.max_unpool2d.

    Raises:
        ValueError: the output has not as many places as the input elements along an axis.
    """
    inner = asked.shape[-asked.dims :]
    outer = _unpooled(asked, inner)
    if any(large < small for large, small in zip(outer, inner, strict=True)):
        told = f"{asked.function}: its output {outer} must not be smaller than its input {inner}"
        raise ValueError(f"{told} along an axis, or several values would share a place")
    flat = np.zeros(asked.shape, np.int64)
    for axis, (small, large) in enumerate(zip(inner, outer, strict=True)):
        edges = np.arange(small + 1) * large // max(1, small)
        across = (-1, *[1] * (asked.dims - 1 - axis))
        chosen = random.integers(edges[:-1].reshape(across), edges[1:].reshape(across), asked.shape)
        flat = flat * large + chosen
    return flat


def _unpooled(asked: Asked, inner: Shape) -> Shape:
    """Extents of max_unpool's output."""
    size = asked.given.get("output_size")
    if size is not None and not isinstance(size, int):
        return tuple(size)[-asked.dims :]
    if size is not None:
        return (size,) * asked.dims
    kernel, padding = (_each(asked, name, default) for name, default in (("kernel_size", 1), ("padding", 0)))
    stride = _each(asked, "stride", None) or kernel
    return tuple(
        (extent - 1) * step - 2 * pad + size
        for extent, step, pad, size in zip(inner, stride, padding, kernel, strict=True)
    )


def _each(asked: Asked, name: str, default: int | None) -> Shape:
    """A parameter's value for each axis; () where there is none.

    Raises:
        ValueError: it has another number of values.
    """
    value = asked.given.get(name, default)
    if value is None:
        return ()
    values = (value,) * asked.dims if isinstance(value, int) else tuple(value)
    values *= asked.dims if len(values) == 1 else 1
    if len(values) != asked.dims or not all(isinstance(one, int) for one in values):
        raise ValueError(f"{asked.function}: {name} must be an integer or {asked.dims} integers, got {value}")
    return values
