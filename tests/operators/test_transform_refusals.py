"""What transforms refuse, and the memory they foresee."""

from __future__ import annotations

import math
from typing import Any

import pytest

from layerwire.errors import InvalidArgumentError
from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES, TensorSpec
from layerwire_server.operators.transform import MAX_ELEMENTS
from tests.operators.transform_calls import operator_of

FLOAT32, FLOAT64, INT8, UINT8, BOOL = (DTYPES[name] for name in ("float32", "float64", "int8", "uint8", "bool"))
REFLECT, REPLICATE, CIRCULAR = 2, 3, 4  # PadMode
BILINEAR = 3  # UpsampleMode
HUGE = (2**31, 2**63 - 1, -(2**31) - 1, -(2**63))

BAD: list[tuple[str, str, dict[str, Any], tuple[tuple[int, ...], ...]]] = [
    *(("reshape", "shape", {"shape": [size]}, ((2, 3),)) for size in (*HUGE, 5, -2)),
    ("reshape", "shape", {"shape": [-1, -1]}, ((2, 3),)),
    ("reshape", "shape", {"shape": [-1, 0]}, ((0, 3),)),
    ("reshape", "shape", {"shape": [-1, 4]}, ((2, 3),)),
    ("reshape", "shape", {"shape": [1] * 9}, ((1,),)),
    ("reshape", "shape", {"shape": [2**32, 2**32, 0]}, ((2, 3),)),
    ("reshape", "input", {"shape": [2**40, 0]}, ((0, 3),)),
    *(("flatten", "start_dim", {"start_dim": dim}, ((2, 3),)) for dim in (*HUGE, 2, -3)),
    *(("flatten", "end_dim", {"end_dim": dim}, ((2, 3),)) for dim in (*HUGE, 2, -3)),
    ("flatten", "end_dim", {"start_dim": 1, "end_dim": 0}, ((2, 3),)),
    *(("permute", "dims", {"dims": [0, dim]}, ((2, 3),)) for dim in (*HUGE, 2, 0, -2)),
    ("permute", "dims", {"dims": [0]}, ((2, 3),)),
    ("permute", "dims", {"dims": list(range(9))}, ((2, 3),)),
    *(("concatenate", "dim", {"dim": dim}, ((2, 3),)) for dim in (*HUGE, 2, -3)),
    ("concatenate", "dim", {}, ((), ())),
    ("concatenate", "input", {"dim": 1}, ((2, 3), (3, 3))),
    ("concatenate", "input", {}, ((0,), (2, 3))),
    *((name, "alpha", {"alpha": alpha}, ((2,), (2,))) for name in ("add", "subtract") for alpha in (math.nan, 1e39)),
    *((name, "other", {}, ((2, 3), (3, 2))) for name in ("add", "subtract", "multiply", "divide")),
    ("add", "input", {}, ((2**40, 1), (1, 2**40))),
    ("multiply", "input", {}, ((0, 2**18, 1), (0, 1, 2**18))),
    ("matmul", "input", {}, ((), (3,))),
    ("matmul", "other", {}, ((3,), ())),
    ("matmul", "other", {}, ((2, 3), (2, 3))),
    ("matmul", "other", {}, ((2, 4, 3), (3, 3, 2))),
    *(("mean", "dims", {"dims": [dim]}, ((2, 3),)) for dim in (*HUGE, 2, -3)),
    ("mean", "dims", {"dims": [1, -1]}, ((2, 3),)),
    ("mean", "dims", {"dims": [0] * 9}, ((2, 3),)),
    *(("pad", "pad", {"pad": [amount, 0]}, ((2, 3),)) for amount in (*HUGE, -4)),
    ("pad", "pad", {"pad": [1]}, ((2, 3),)),
    ("pad", "pad", {"pad": [1] * 6}, ((2, 3),)),
    ("pad", "pad", {"pad": [0] * 18}, ((2, 3),)),
    ("pad", "pad", {"pad": [-5, 5]}, ((2, 3),)),
    ("pad", "value", {"pad": [1, 1], "value": 1e39}, ((2, 3),)),
    ("pad", "value", {"pad": [1, 1], "mode": REFLECT, "value": 1.0}, ((2, 3),)),
    ("pad", "mode", {"pad": [1, 1], "mode": 5}, ((2, 3),)),
    *(("pad", "pad", {"pad": pad, "mode": REFLECT}, ((2, 3),)) for pad in ([3, 0], [0, 3], [-3, 0], [], [1] * 8)),
    *(("pad", "pad", {"pad": pad, "mode": CIRCULAR}, ((2, 3),)) for pad in ([4, 0], [3, -2], [-1, 3])),
    *(("pad", "pad", {"pad": [-2, -1], "mode": mode}, ((2, 3),)) for mode in (REFLECT, REPLICATE, CIRCULAR)),
    *(("pad", "input", {"pad": [1, 1], "mode": mode}, ((2, 0, 3),)) for mode in (REFLECT, REPLICATE, CIRCULAR)),
    *(("pad", "input", {"pad": [1, 1], "mode": REPLICATE}, (shape,)) for shape in ((3,), (1, 1, 1, 3))),
    ("upsample", "size", {}, ((1, 1, 3),)),
    ("upsample", "size", {"size": [2], "scale_factor": [2.0]}, ((1, 1, 3),)),
    *(("upsample", "size", {"size": [size]}, ((1, 1, 3),)) for size in (*HUGE, 0)),
    ("upsample", "size", {"size": [2, 2]}, ((1, 1, 3),)),
    ("upsample", "size", {"size": [2] * 4}, ((1, 1, 3),)),
    *(("upsample", "scale_factor", {"scale_factor": [f]}, ((1, 1, 3),)) for f in (math.nan, math.inf, -1.0, 0.1, 1e30)),
    ("upsample", "input", {"size": [2**31 - 1]}, ((0, 1, 1),)),
    ("upsample", "mode", {"size": [2], "mode": 9}, ((1, 1, 3),)),
    ("upsample", "align_corners", {"size": [2], "align_corners": False}, ((1, 1, 3),)),
    ("upsample", "recompute_scale_factor", {"size": [2], "recompute_scale_factor": True}, ((1, 1, 3),)),
    ("upsample", "antialias", {"size": [2], "antialias": True}, ((1, 1, 3, 3),)),
    *(("upsample", "input", {"size": [2], "mode": BILINEAR}, (shape,)) for shape in ((1, 1, 3), (1, 0, 3, 3))),
    ("upsample", "input", {"size": [2]}, ((3, 3),)),
    *(("channel_shuffle", "groups", {"groups": groups}, ((1, 4, 3),)) for groups in (*HUGE, 0, 3, 8)),
    ("channel_shuffle", "input", {"groups": 2}, ((2, 4),)),
    *(("dropout", "p", {"p": p}, ((2,),)) for p in (math.nan, -0.1, 1.1, math.inf)),
    *(("narrow", "dim", {"dim": dim}, ((2, 3),)) for dim in (*HUGE, 2, -3)),
    *(("narrow", "start", {"start": start}, ((2, 3),)) for start in (*HUGE, 3, -3)),
    *(("narrow", "length", {"length": length}, ((2, 3),)) for length in (*HUGE, 3, -1)),
    ("narrow", "dim", {}, ((),)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field", "parameters", "shapes"), BAD, ids=str)
def test_is_refused(name: str, field: str, parameters: dict[str, Any], shapes: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{name}: {field} ") as refusal:
        operator_of(name, parameters, len(shapes)).check(tuple(TensorSpec(FLOAT32, shape) for shape in shapes))
    assert (refusal.value.operator, refusal.value.field) == (name, field)


@pytest.mark.parametrize(
    ("dtype", "name", "parameters"),
    [
        (INT8, "add", {"alpha": 1.5}),
        (INT8, "add", {"alpha": 200.0}),
        (BOOL, "add", {"alpha": 2.0}),
        (INT8, "pad", {"pad": [1, 1], "value": math.nan}),
        (UINT8, "pad", {"pad": [1, 1], "value": -1.0}),
        (DTYPES["int64"], "pad", {"pad": [1, 1], "value": 2.0**63}),
        (DTYPES["float16"], "pad", {"pad": [1, 1], "value": 65505.0}),
    ],
    ids=str,
)
def test_numbers_fit_the_dtype(dtype: int, name: str, parameters: dict[str, Any]) -> None:
    operator = operator_of(name, parameters, 1)
    with pytest.raises(InvalidArgumentError, match=DTYPE_NAMES[dtype]):
        operator.check((TensorSpec(dtype, (2, 3)),) * len(operator.inputs))


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "matmul", "concatenate"])
def test_dtypes_agree(name: str) -> None:
    operator = operator_of(name, {}, 2)
    with pytest.raises(InvalidArgumentError, match="must have input's dtype float32, got float64"):
        operator.check((TensorSpec(FLOAT32, (2, 2)), TensorSpec(FLOAT64, (2, 2))))


@pytest.mark.parametrize(
    ("name", "parameters", "shapes"),
    [
        ("pad", {"pad": [2**31 - 1, 0]}, ((1, 1),)),
        ("upsample", {"size": [2**31 - 1]}, ((1, 1, 1),)),
        ("upsample", {"size": [1, 2**20], "mode": BILINEAR, "antialias": True}, ((1, 1, 2**20, 1),)),
        ("matmul", {}, ((2**10, 1, 1, 2**10), (2**10, 2**10, 1))),
        ("add", {}, ((2**20, 1), (1, 2**20))),
    ],
    ids=str,
)
def test_memory_is_foreseen(name: str, parameters: dict[str, Any], shapes: Any) -> None:
    operator = operator_of(name, parameters, len(shapes))
    specs = tuple(TensorSpec(FLOAT32, shape) for shape in shapes)
    operator.check(specs)
    assert operator.output_bytes_bound(specs) >= 2**31
    assert math.prod(operator.output_shape(specs)) <= MAX_ELEMENTS
