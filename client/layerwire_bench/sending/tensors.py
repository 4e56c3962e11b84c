"""Random tensors of the load tester, and what stands for a tensor on a command line or in a file.

It knows numpy and dtypes; neither operators nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
import numpy as np
import numpy.typing as npt

from layerwire.cli.parameters import load_npy
from layerwire.wire.arrays import numpy_dtype
from layerwire.wire.dtypes import DTYPES, ITEMSIZES, MAX_AXES

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Random: TypeAlias = np.random.Generator

NAME_PREFIX = "name:"
_ROOM_BYTES = 64 << 10  # of a message, for all that isn't elements


@dataclass(frozen=True)
class SampleSettings:
    """How samples are made.

    Attributes:
        seed: of all that is random; equal ones give equal calls.
        samples: of each kind of call.
        max_message_bytes: what a message may have.
        fetch: gives stored weights by name, or None; without them the first answer is what answers should be.
        verify: whether it is wanted what answers should be, which takes torch some seconds.
    """

    seed: int = 0
    samples: int = 4
    max_message_bytes: int = 64 << 20
    fetch: Callable[[str], Array | None] = lambda _name: None
    verify: bool = True

    def random(self, *numbers: int) -> Random:
        """A generator of its own for each sequence of numbers."""
        return np.random.default_rng([self.seed, *numbers])

    def check(self, subject: str, size_bytes: int) -> None:
        """Checks that so many bytes of elements go in a message; raises ValueError if they don't."""
        if size_bytes > self.max_elements_bytes:
            limit = f"a message is at most {self.max_message_bytes:,}, which --max-message-bytes says"
            raise ValueError(
                f"{subject} must be at most {self.max_elements_bytes:,} bytes, got {size_bytes:,}: {limit}"
            )

    def check_shape(self, subject: str, shape: Sequence[int], dtype: str) -> Shape:
        """The shape, if a message can bring such a tensor; raises ValueError if it can't."""
        dtype_of(dtype)
        if any(type(extent) is not int or extent < 0 for extent in shape):
            raise ValueError(f"{subject} must have extents of 0 or more, got {list(shape)}")
        if len(shape) > MAX_AXES:
            raise ValueError(f"{subject} must have at most {MAX_AXES} axes, got {len(shape)}")
        self.check(subject, math.prod(shape) * ITEMSIZES[DTYPES[dtype]])
        return tuple(shape)

    @property
    def max_elements_bytes(self) -> int:
        """What a message may have of elements."""
        return self.max_message_bytes - _ROOM_BYTES


USUAL = SampleSettings()


@dataclass(frozen=True)
class RandomTensor:
    """A tensor to be drawn at random; `dtype` None is the call's."""

    shape: Shape
    dtype: str | None = None


@dataclass(frozen=True)
class StoredTensor:
    """Weights that the server has by this name."""

    name: str


Source: TypeAlias = RandomTensor | StoredTensor | Array

# How elements are drawn. In each, 16-bit floats stay what they are meant to be, below 1 or above 0, when rounded.
VALUES: dict[str, Callable[[Random, Shape], Array]] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "small": lambda random, shape: 0.1 * random.standard_normal(shape),
    # of products: sums of as many stay near 1, so that 16-bit floats hold them
    "scaled": lambda random, shape: (
        random.standard_normal(shape) / math.sqrt(max(1, math.prod(shape) // max(1, shape[0] if shape else 1)))
    ),
    "near one": lambda random, shape: random.uniform(0.5, 1.5, shape),
    "unit": lambda random, shape: 0.99 * random.random(shape),
}
_LOW, _HIGH = -8, 9  # of integers: products of a few fit in 8 bits


def random_array(random: Random, shape: Shape, dtype_name: str, values: str = "normal") -> Array:
    """A random tensor; integers are small, whatever `values` says.

    Raises:
        ValueError: numpy has no such dtype here.
    """
    dtype = dtype_of(dtype_name)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return random.integers(0 if dtype.kind == "u" else _LOW, _HIGH, shape).astype(dtype)
    return np.asarray(VALUES[values](random, shape)).astype(dtype)


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of this name; raises ValueError if there is none, or it needs ml_dtypes, which isn't there."""
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name[:40]}")
    try:
        return numpy_dtype(DTYPES[name])
    except TypeError as error:
        raise ValueError(str(error)) from None


def source(text: str) -> Source:
    """What is meant by 512,512 (random of that shape), name:NAME (weights of the server), or the path of a .npy file.

    Raises:
        ValueError: it is none of these.
    """
    if text.startswith(NAME_PREFIX):
        if text == NAME_PREFIX:
            raise ValueError(f"{text}: a name must follow")
        return StoredTensor(text.removeprefix(NAME_PREFIX))
    if text.endswith(".npy") or Path(text).is_file():
        return load_array(Path(text))
    try:
        return RandomTensor(shape(text))
    except ValueError:
        forms = "a shape such as 512,512, name:NAME of stored weights, or a .npy file"
        raise ValueError(f"{text[:80]}: must be {forms}") from None


def source_by_name(text: str) -> tuple[str, Source]:
    """What is meant by input=1,1,28,28 or input=x.npy; raises ValueError if it is neither."""
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise ValueError(f"{text[:80]}: must be NAME=SHAPE or NAME=FILE, such as input=1,1,28,28")
    tensor = source(value)
    if isinstance(tensor, StoredTensor):
        raise ValueError(f"{text[:80]}: must be a shape or a file, for a program's inputs have no names in the store")  # noqa: TRY004
    return name, tensor


def shape(text: str) -> Shape:
    """The shape of 1,3,32,32; raises ValueError if it is none."""
    try:
        extents = tuple(int(part) for part in text.split(","))
    except ValueError:
        extents = (-1,)
    if min(extents) < 0:
        raise ValueError(f"{text[:80]}: must be extents of 0 or more such as 1,3,32,32")
    return extents


def load_array(path: Path) -> Array:
    """The array of a .npy file, in a dtype that tensors have; raises ValueError if there is none."""
    try:
        array = load_npy(str(path))
    except click.BadParameter as error:
        raise ValueError(error.message) from None
    if array.dtype.name not in DTYPES:
        raise ValueError(f"{path}: dtype must be one of {', '.join(DTYPES)}, got {array.dtype.name}")
    return array
