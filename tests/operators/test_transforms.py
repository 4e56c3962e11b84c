"""Transforms: each against torch itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from layerwire.errors import InvalidArgumentError
from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES, TensorSpec
from layerwire_server.operators import TRANSFORMS
from layerwire_server.operators.operator import Input, Merge
from tests.operators.local import same_bits
from tests.operators.transform_calls import MESSAGES, operator_of, tensor

FLOAT32 = DTYPES["float32"]
CONSTANT, REFLECT, REPLICATE, CIRCULAR = 1, 2, 3, 4  # PadMode
NEAREST, LINEAR, BILINEAR, BICUBIC, TRILINEAR, AREA, EXACT = range(1, 8)  # UpsampleMode


@dataclass(frozen=True)
class Row:
    """A node: its operator, its message's fields, its inputs' shapes, and the same in torch."""

    id: str
    shapes: tuple[tuple[int, ...], ...]
    torch: Callable[..., torch.Tensor]
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.id.split("-")[0]


def row(id: str, *shapes: tuple[int, ...], torch: Callable[..., torch.Tensor], **parameters: Any) -> Row:
    return Row(id, shapes, torch, parameters)


def pads(mode: str, *shapes_and_pads: Any) -> list[Row]:
    number = {"constant": CONSTANT, "reflect": REFLECT, "replicate": REPLICATE, "circular": CIRCULAR}[mode]
    return [
        row(f"pad-{mode}-{index}", shape, torch=lambda x, pad=pad: F.pad(x, pad, mode), pad=pad, mode=number)
        for index, (shape, pad) in enumerate(shapes_and_pads)
    ]


def upsamples(name: str, mode: int, shape: tuple[int, ...], *kwargs: dict[str, Any]) -> list[Row]:
    def make(index: int, arguments: dict[str, Any]) -> Row:
        message = {key: [value] if isinstance(value, int | float) and key in ("size", "scale_factor") else value
                   for key, value in arguments.items()}  # fmt: skip
        return row(
            f"upsample-{name}-{index}",
            shape,
            torch=lambda x: F.interpolate(x, **arguments, mode=name),
            mode=mode,
            **message,
        )

    return [make(index, arguments) for index, arguments in enumerate(kwargs)]


SIZES: list[dict[str, Any]] = [
    {"scale_factor": 2.0},
    {"scale_factor": 0.6},
    {"scale_factor": 1.7, "recompute_scale_factor": True},
    {"size": 7},
    {"size": 2},
]
CORNERS: list[dict[str, Any]] = [{"size": 9, "align_corners": True}, {"scale_factor": 1.5, "align_corners": True}]
SMOOTH: list[dict[str, Any]] = [{**arguments, "antialias": True} for arguments in (*SIZES, *CORNERS)]

ROWS = [
    row("reshape-free", (2, 3, 4), torch=lambda x: x.reshape(-1, 6), shape=[-1, 6]),
    row("reshape-inner", (2, 3, 4), torch=lambda x: x.reshape(4, -1, 2), shape=[4, -1, 2]),
    row("reshape-given", (2, 6), torch=lambda x: x.reshape(3, 4), shape=[3, 4]),
    row("reshape-to-scalar", (1, 1), torch=lambda x: x.reshape(()), shape=[]),
    row("reshape-of-scalar", (), torch=lambda x: x.reshape(1, -1), shape=[1, -1]),
    row("reshape-empty", (0, 3), torch=lambda x: x.reshape(5, -1), shape=[5, -1]),
    row("reshape-empty-given", (0, 3), torch=lambda x: x.reshape(7, 0), shape=[7, 0]),
    row("flatten-all", (2, 3, 4), torch=torch.flatten),
    row("flatten-behind", (2, 3, 4), torch=lambda x: x.flatten(1), start_dim=1),
    row("flatten-front", (2, 3, 4), torch=lambda x: x.flatten(-3, -2), start_dim=-3, end_dim=-2),
    row("flatten-one", (2, 3), torch=lambda x: x.flatten(1, 1), start_dim=1, end_dim=1),
    row("flatten-scalar", (), torch=torch.flatten),
    row("permute-images", (2, 3, 4, 5), torch=lambda x: x.permute(0, 2, 3, 1), dims=[0, 2, 3, 1]),
    row("permute-negative", (2, 3, 4), torch=lambda x: x.permute(-1, 0, -2), dims=[-1, 0, -2]),
    row("permute-scalar", (), torch=lambda x: x.permute(()), dims=[]),
    row("narrow-front", (5, 3), torch=lambda x: x.narrow(0, 1, 3), dim=0, start=1, length=3),
    row("narrow-negative", (2, 6), torch=lambda x: x.narrow(-1, -4, 2), dim=-1, start=-4, length=2),
    row("narrow-nothing", (2, 6), torch=lambda x: x.narrow(1, 6, 0), dim=1, start=6, length=0),
    row("concatenate-default", (2, 3), (1, 3), torch=lambda *x: torch.cat(x)),
    row("concatenate-channels", (2, 3, 4), (2, 1, 4), (2, 2, 4), torch=lambda *x: torch.cat(x, 1), dim=1),
    row("concatenate-one", (2, 3), torch=lambda *x: torch.cat(x, -1), dim=-1),
    row("concatenate-empty", (2, 0), (2, 3), torch=lambda *x: torch.cat(x, 1), dim=1),
    row("channel_shuffle-images", (2, 6, 3, 3), torch=lambda x: F.channel_shuffle(x, 3), groups=3),
    row("channel_shuffle-series", (2, 4, 3), torch=lambda x: F.channel_shuffle(x, 2), groups=2),
    row("channel_shuffle-volumes", (0, 4, 2, 2, 2), torch=lambda x: F.channel_shuffle(x, 4), groups=4),
    row("identity", (2, 3), torch=lambda x: x),
    row("dropout-default", (2, 3), torch=lambda x: F.dropout(x, training=False)),
    row("dropout-all", (), torch=lambda x: F.dropout(x, 1.0, training=False), p=1.0),
    row("add-same", (2, 3), (2, 3), torch=torch.add),
    row("add-alpha", (2, 1, 4), (3, 1), torch=lambda x, y: torch.add(x, y, alpha=1), alpha=1.0),
    row("add-empty", (0, 3), (1, 3), torch=torch.add),
    row("add-scalar", (), (2, 3), torch=torch.add),
    row("subtract-same", (2, 3), (2, 3), torch=torch.sub),
    row("subtract-alpha", (4,), (3, 1), torch=lambda x, y: torch.sub(x, y, alpha=2), alpha=2.0),
    row("multiply-channels", (2, 3, 4, 4), (2, 3, 1, 1), torch=torch.mul),
    row("divide", (2, 3), (1, 3), torch=torch.div),
    row("matmul-vectors", (4,), (4,), torch=torch.matmul),
    row("matmul-matrices", (2, 4), (4, 3), torch=torch.matmul),
    row("matmul-by-vector", (2, 3, 4), (4,), torch=torch.matmul),
    row("matmul-vector-by", (4,), (2, 4, 3), torch=torch.matmul),
    row("matmul-stacks", (2, 3, 4), (2, 4, 5), torch=torch.matmul),
    row("matmul-broadcast", (3, 1, 2, 4), (5, 4, 2), torch=torch.matmul),
    row("matmul-nothing", (2, 0), (0, 3), torch=torch.matmul),
    row("mean-all", (2, 3, 4), torch=torch.mean),
    row("mean-spatial", (2, 3, 4, 5), torch=lambda x: x.mean((-2, -1)), dims=[-2, -1]),
    row("mean-keepdim", (2, 3), torch=lambda x: x.mean((1,), keepdim=True), dims=[1], keepdim=True),
    row("mean-scalar", (), torch=lambda x: x.mean((0,)), dims=[0]),
    row("mean-of-nothing", (2, 0), torch=lambda x: x.mean((1,)), dims=[1]),
    row("pad-value", (2, 3), torch=lambda x: F.pad(x, (1, 0, 2, 1), value=1.0), pad=(1, 0, 2, 1), value=1.0),
    row("pad-default-mode", (2, 3), torch=lambda x: F.pad(x, (1, 1)), pad=(1, 1), mode=0),
    *pads("constant", ((2, 3), ()), ((2, 3), (-1, 2)), ((2, 3), (-1, -2)), ((0, 3), (1, 1)), ((2, 0), (1, 1))),
    *pads("reflect", ((2, 3), (2, 1)), ((2, 3, 4), (3, -1)), ((2, 3, 4, 4), (1, 1, 2, 2)), ((0, 2, 4), (1, 1))),
    *pads("replicate", ((2, 3), (7, 1)), ((2, 3, 3, 3), (1,) * 6), ((2, 2, 3, 3, 3), (1, 0, 2, 0, 0, 3))),
    *pads("circular", ((2, 3), (3, 1)), ((2, 3, 4), (-2, 2)), ((2, 2, 4, 4), (1, 2, 3, 4)), ((2, 3, 3, 3), (1,) * 6)),
    *upsamples("nearest", NEAREST, (2, 3, 5), *SIZES),
    *upsamples("nearest", NEAREST, (2, 3, 5, 4), {"size": [3, 9]}, {"scale_factor": [0.5, 3.0]}),
    *upsamples("nearest", NEAREST, (0, 3, 2, 5, 4), {"size": [3, 9, 1]}, {"scale_factor": 2.0}),
    *upsamples("nearest-exact", EXACT, (2, 3, 5, 4), *SIZES),
    *upsamples("linear", LINEAR, (2, 3, 5), *SIZES, *CORNERS),
    *upsamples("bilinear", BILINEAR, (2, 3, 5, 4), *SIZES, *CORNERS, *SMOOTH, {"size": [1, 9]}),
    *upsamples("bicubic", BICUBIC, (2, 3, 5, 4), *SIZES, *CORNERS, *SMOOTH, {"scale_factor": [0.5, 3.0]}),
    *upsamples("trilinear", TRILINEAR, (2, 3, 4, 5, 4), *SIZES, *CORNERS),
    *upsamples("area", AREA, (2, 3, 5), *SIZES),
    *upsamples("area", AREA, (2, 3, 5, 4), {"size": [3, 9]}),
    *upsamples("area", AREA, (0, 3, 2, 5, 4), {"scale_factor": 2.0}),
]
# torch answers integers divided with floats, and matrices of truth values where they have no elements.
TAKEN_AND_LEFT_OUT = {"divide", "matmul-nothing"}


def test_every_transform_has_rows() -> None:
    assert {one.name for one in ROWS} == set(TRANSFORMS) == set(MESSAGES)
    assert all(name == operator.name and operator.family == "transform" for name, operator in TRANSFORMS.items())


def _inputs(one: Row, dtype: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(len(one.id))
    return tuple(tensor(generator, TensorSpec(dtype, shape)) for shape in one.shapes)


@pytest.mark.parametrize("one", ROWS, ids=lambda one: f"{one.id}-{one.shapes[0]}")
def test_is_torch(one: Row) -> None:
    operator = operator_of(one.name, one.parameters, len(one.shapes))
    for dtype in DTYPE_NAMES:
        inputs = _inputs(one, dtype)
        specs = tuple(TensorSpec(dtype, shape) for shape in one.shapes)
        if dtype not in operator.dtypes_on("cpu"):
            if one.id not in TAKEN_AND_LEFT_OUT and 0 not in one.shapes[0]:
                with pytest.raises((RuntimeError, TypeError)):
                    one.torch(*inputs)
            continue
        operator.check(specs)
        before = [x.clone() for x in inputs]
        (answer,) = operator.run(*inputs)
        assert same_bits(answer, one.torch(*inputs))
        assert all(map(same_bits, inputs, before)), "inputs are never written"
        outputs = (TensorSpec(dtype, tuple(answer.shape)),)
        assert operator.output_shape(specs) == outputs[0].shape
        assert operator.output_bytes_bound(specs) >= outputs[0].nbytes
        assert operator.work(specs, operator.operations(specs, outputs)) >= 0
        assert operator.placement(specs) == (Merge.ALONE, operator, 0)


def test_equal_meaning_is_an_equal_value() -> None:
    def make(name: str, **parameters: Any) -> Any:
        return operator_of(name, parameters, 1)

    assert make("permute", dims=[0, -1, 1]) == make("permute", dims=[0, 2, 1])
    assert make("dropout", p=0.1) == make("dropout")
    assert make("upsample", size=[2], mode=0) == make("upsample", size=[2], mode=NEAREST)
    assert make("pad", pad=[1, 1], value=math.nan) == make("pad", pad=[1, 1], value=math.nan)
    assert make("pad", pad=[1, 1], value=-0.0) != make("pad", pad=[1, 1])
    assert make("add", alpha=-0.0) != make("add", alpha=0.0)


def test_concatenate_takes_as_many_as_the_node_has() -> None:
    operator = TRANSFORMS["concatenate"].from_message(MESSAGES["concatenate"](dim=1))
    assert operator.with_inputs(3).inputs == (Input("input"),) * 3
    for count in (0, 65):
        with pytest.raises(InvalidArgumentError, match="from 1 to 64 times") as refusal:
            operator.with_inputs(count)
        assert refusal.value.field == "input"


@pytest.mark.parametrize("pad", [(-2, 2), (2, -1), (-1, 1), (-1, -1), (1, 2)], ids=str)
@pytest.mark.parametrize("mode", ["circular", "replicate"])
def test_removed_and_repeated(mode: str, pad: tuple[int, int]) -> None:
    x = torch.arange(8.0).reshape(2, 4)
    operator = operator_of("pad", {"pad": pad, "mode": CIRCULAR if mode == "circular" else REPLICATE}, 1)
    operator.check((TensorSpec(FLOAT32, (2, 4)),))
    left = x[:, max(-pad[0], 0) : 4 - max(-pad[1], 0)]
    index = torch.arange(-max(pad[0], 0), left.shape[1] + max(pad[1], 0))
    index = index % left.shape[1] if mode == "circular" else index.clamp(0, left.shape[1] - 1)
    assert torch.equal(operator.run(x)[0], left[:, index])
