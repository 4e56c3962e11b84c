"""Random nodes with transforms: some as networks have them, some hostile.

Run as a program it looks for calls that pass the checks and that torch then refuses, under a limit of memory.
"""

from __future__ import annotations

import json
import math
import random
import resource
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from layerwire.errors import InvalidArgumentError
from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import DTYPES, MAX_AXES, TensorSpec
from layerwire_server.operators import TRANSFORMS
from layerwire_server.operators.operator import TORCH_DTYPES, WIRE_DTYPES, Operator, Specs
from layerwire_server.operators.transform import Transform

MESSAGES = {field.name: field.message_type._concrete_class for field in program_pb2.TransformOperator.DESCRIPTOR.fields}
HOSTILE = (-(2**63), -(2**31) - 1, -(2**31), -1, 0, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
ODD_FLOATS = (math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e-9, -1.0, 1.5, 65505.0, 3.5e38, 1e300, 2.0**63)
MAX_OUTPUT_BYTES, MAX_WORK = 1 << 26, 2e8


class Draw(NamedTuple):
    """A source of arguments; `hostility` is how likely each is a hostile one."""

    random: random.Random
    hostility: float

    def whole(self, low: int, high: int) -> int:
        if self.random.random() < self.hostility:
            return self.random.choice(HOSTILE)
        return self.random.randint(low, max(low, high))

    def real(self, low: float, high: float) -> float:
        if self.random.random() < self.hostility:
            return self.random.choice(ODD_FLOATS)
        return self.random.choice((0.5, 1.0, 2.0, self.random.uniform(low, high)))

    def wholes(self, count: int, low: int, high: int) -> list[int]:
        return [self.whole(low, high) for _ in range(count)]

    def reals(self, count: int, low: float, high: float) -> list[float]:
        return [self.real(low, high) for _ in range(count)]

    def axis(self, shape: tuple[int, ...]) -> int:
        """One of the shape's, counted from the front or the back."""
        return self.whole(-len(shape), len(shape) - 1)

    def shape(self, least_axes: int = 0, most_axes: int = 5) -> tuple[int, ...]:
        odd = self.random.random() < self.hostility
        axes = self.random.randint(0, MAX_AXES) if odd else self.random.randint(least_axes, most_axes)
        sizes = (0, 1, 1, 2, 2, 3, 4, 5, 6, 2**11, 2**21, 2**40) if odd else (1, 1, 2, 2, 3, 4, 6)
        shape = [self.random.choice(sizes) for _ in range(axes)]
        if math.prod(shape) > 2**22:
            shape[self.random.randrange(axes)] = 0
        return tuple(shape)

    def dtype(self, dtypes: frozenset[int]) -> int:
        common = DTYPES["float32"]
        if common in dtypes and self.random.random() < 0.5:
            return common
        return self.random.choice(sorted(dtypes))


def fields(draw: Draw, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Parameters of a transform's message, for an input of this shape."""
    make = FIELDS.get(name)
    return {} if make is None else make(draw, shape)


def _reshape(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    pick, elements = draw.random, min(math.prod(shape[1:]), 2**62)
    first = pick.choice([size for size in range(1, 13) if elements % size == 0])
    sensible = [
        [-1],
        [-1, max(elements, 1)],
        [-1, first],
        [-1, first, max(elements, 1) // first],
        [*shape[:1], -1],
    ]
    choice = pick.choice(sensible) if shape else [-1]
    return {"shape": choice if pick.random() > draw.hostility else draw.wholes(pick.randint(0, 9), -1, 6)}


def _flatten(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    return {key: draw.axis(shape) for key in ("start_dim", "end_dim") if draw.random.random() < 0.7}


def _permute(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    pick, dims = draw.random, list(range(len(shape)))
    if pick.random() < 0.5:
        pick.shuffle(dims)
    tail = dims[1:]
    pick.shuffle(tail)
    return {"dims": [dim if pick.random() > draw.hostility else draw.whole(-9, 9) for dim in dims[:1] + tail]}


def _alpha(draw: Draw, _shape: tuple[int, ...]) -> dict[str, Any]:
    return {"alpha": draw.real(-3, 3)} if draw.random.random() < 0.5 else {}


def _mean(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    pick, axes = draw.random, len(shape)
    dims = pick.sample(range(axes), pick.randint(0, axes))
    return {"dims": [*dims, *draw.wholes(pick.random() < draw.hostility, -9, 9)], "keepdim": pick.random() < 0.5}


def _pad(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    pick = draw.random
    mode = pick.choice([draw.whole(0, 4), 1, 1])
    pairs = pick.randint(0, len(shape)) if mode < 2 else pick.randint(1, 3)
    return {
        "pad": [
            value if pick.random() > draw.hostility else draw.whole(-9, 9) for value in draw.wholes(2 * pairs, -2, 2)
        ],
        "mode": mode % 2**31,
        "value": draw.real(-2, 2) if mode < 2 or pick.random() < draw.hostility else 0.0,
    }


def _upsample(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    pick, spatial = draw.random, max(len(shape) - 2, 1)
    count, by_size = pick.choice((1, spatial)), pick.random() < 0.5
    mode = pick.choice([{1: 2, 2: 3, 3: 5}.get(spatial, 1), 1, 4, draw.whole(0, 7)])
    extents = {"size": draw.wholes(count, 1, 9)} if by_size else {"scale_factor": draw.reals(count, 0.3, 3)}
    return {
        **extents,
        "mode": mode % 2**31,
        **({"align_corners": True} if mode in (2, 3, 4, 5) and pick.random() < 0.3 else {}),
        "recompute_scale_factor": not by_size and pick.random() < 0.5,
        "antialias": mode in (3, 4) and pick.random() < 0.5,
    }


def _channel_shuffle(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"groups": draw.whole(1, 3) if draw.random.random() < 0.5 or len(shape) < 2 else max(shape[1], 1)}


def _narrow(draw: Draw, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"dim": draw.axis(shape), "start": draw.whole(-2, 2), "length": draw.whole(0, 3)}


FIELDS: dict[str, Callable[[Draw, tuple[int, ...]], dict[str, Any]]] = {  # of the transforms that have parameters
    "reshape": _reshape,
    "flatten": _flatten,
    "permute": _permute,
    "concatenate": lambda draw, shape: {"dim": draw.axis(shape)},
    "add": _alpha,
    "subtract": _alpha,
    "mean": _mean,
    "pad": _pad,
    "upsample": _upsample,
    "channel_shuffle": _channel_shuffle,
    "dropout": lambda draw, _shape: {"p": draw.real(0, 1)},
    "narrow": _narrow,
}


def shapes(draw: Draw, name: str) -> list[tuple[int, ...]]:
    """Shapes of a transform's inputs, of several sorts."""
    pick = draw.random
    if name in ("upsample", "channel_shuffle", "pad"):
        return [draw.shape(3 if name != "pad" else 2, 5)]
    shape = draw.shape(1)
    if name == "matmul":
        inner = shape[-1] if shape else 1
        stack = tuple(pick.choice((size, size, 1)) for size in shape[: pick.randint(0, max(len(shape) - 2, 0))])
        others = [(inner,), (inner, 3), (*stack, inner, 2), (*shape[:-2], inner, 2), draw.shape(1)]
        pair = [shape, pick.choice(others)]
        return pair if pick.random() < 0.7 else [other[:-2] + other[-2:][::-1] for other in reversed(pair)]
    if name in ("add", "subtract", "multiply", "divide"):
        cut = pick.randint(0, len(shape)) if pick.random() < 0.5 else 0
        other = tuple(pick.choice((size, size, 1)) for size in shape[cut:])
        pair = [shape, draw.shape(1) if pick.random() < draw.hostility else other]
        return pair if pick.random() < 0.5 else pair[::-1]
    if name == "concatenate":
        return [shape if pick.random() > draw.hostility else draw.shape(1) for _ in range(pick.randint(1, 4))]
    return [shape]


def operator_of(name: str, parameters: dict[str, Any], inputs: int) -> Transform:
    """The operator of a node.

    Raises:
        InvalidArgumentError: its parameters are refused.
    """
    operator = TRANSFORMS[name].from_message(MESSAGES[name](**parameters))
    assert isinstance(operator, Transform)
    return operator.with_inputs(inputs)


def tensor(generator: torch.Generator, spec: TensorSpec) -> torch.Tensor:
    """Small whole numbers, so that no order of adding them up makes a difference."""
    return torch.randint(0, 4, spec.shape, generator=generator).to(TORCH_DTYPES[spec.dtype])


def call(draw: Draw, name: str) -> tuple[Transform, Specs]:
    """A call of a transform that passed all checks.

    Raises:
        InvalidArgumentError: it was refused.
    """
    sizes = shapes(draw, name)
    operator = operator_of(name, fields(draw, name, sizes[0]), len(sizes))
    dtype = draw.dtype(operator.dtypes_on("cpu"))
    specs = tuple(TensorSpec(dtype, shape) for shape in sizes)
    operator.check(specs)
    return operator, specs


def run_both(operator: Operator, specs: Specs, generator: torch.Generator) -> None:
    """Runs on meta and on the CPU; both give the shape that was foreseen."""
    assert isinstance(operator, Transform)
    shape = operator.output_shape(specs)
    inputs = [spec for spec in specs if spec is not None]
    metas = (torch.empty(spec.shape, dtype=TORCH_DTYPES[spec.dtype], device="meta") for spec in inputs)
    (inference,) = operator.run(*metas)
    (answer,) = operator.run(*(tensor(generator, spec) for spec in inputs))
    for output in (inference, answer):
        assert tuple(output.shape) == shape, (tuple(output.shape), shape)
        assert WIRE_DTYPES[output.dtype] == inputs[0].dtype


def main(seed: int, rounds: int) -> int:
    """Prints what torch refused, and of each transform how many calls passed and were refused."""
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    generator = torch.Generator().manual_seed(seed)
    failures = 0
    for index in range(rounds):
        draw = Draw(random.Random(seed * 1_000_003 + index), (0.05, 0.3, 0.7)[index % 3])
        name = sorted(TRANSFORMS)[index // 3 % len(TRANSFORMS)]
        try:
            operator, specs = call(draw, name)
        except InvalidArgumentError as refusal:
            assert refusal.operator == name
            assert refusal.field
            counts[f"{name} refused"] += 1
            continue
        outputs = (TensorSpec(specs[0].dtype, operator.output_shape(specs)),)
        work = operator.work(specs, operator.operations(specs, outputs))
        if operator.output_bytes_bound(specs) > MAX_OUTPUT_BYTES or work > MAX_WORK:
            counts[f"{name} too large"] += 1
            continue
        try:
            run_both(operator, specs, generator)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, MemoryError, UserWarning) as error:
            failures += 1
            print(operator, specs, repr(error), file=sys.stderr)
        counts[f"{name} ran"] += 1
    print(json.dumps(counts))
    return failures


if __name__ == "__main__":
    sys.exit(min(main(int(sys.argv[1]), int(sys.argv[2])), 1))
