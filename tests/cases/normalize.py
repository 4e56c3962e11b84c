"""Cases of the normalisations; those of batch_norm and instance_norm are in normalize_running.py."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from tests.cases import normalize_running
from tests.cases.normalize_running import channels
from tests.operator_cases import Bad, Case, T

FLOATS = ("float32", "float64", "float16", "bfloat16")
INF, NAN = math.inf, math.nan


def _over_last_axes() -> list[Case]:
    rows = []
    for function, extra in (("layer_norm", (T((6,)), T((6,), seed=1))), ("rms_norm", (T((6,)),))):

        def case(about: str, *args: Any, name: str = function, **kwargs: Any) -> Case:
            return Case(f"{name}-{about}", name, args, kwargs)

        rows += [case(f"rank-{rank}", T((3,) * (rank - 1) + (6,)), (6,), *extra) for rank in (1, 2, 3, 5)]
        rows += [
            case(dtype, T((4, 6), dtype), (6,), *(T(e.shape, dtype, seed=e.seed) for e in extra))
            for dtype in FLOATS[1:]
        ]
        rows += [
            case("no-weight", T((4, 6)), (6,)),
            case("2-axes", T((2, 3, 4, 5)), (4, 5), T((4, 5))),
            case("all-axes", T((3, 4)), [3, 4]),
            case("list", T((3, 4)), [4]),
            case("eps", T((4, 6)), (6,), eps=0.5),
            case("special", T((7, 6), values="special"), (6,), *extra),
            case("empty-rows", T((0, 6)), (6,), *extra),
            case("empty-axis", T((3, 0)), (0,)),
            case("one", T((3, 1)), (1,)),
            case("wide", T((2, 1000)), (1000,)),
        ]
    rows += [
        Case("layer_norm-no-weight-but-bias", "layer_norm", (T((4, 6)), (6,), None, T((6,)))),
        *(
            Case(f"layer_norm-{half}-with-float32", "layer_norm", (T((4, 6), half), (6,), T((6,)), T((6,), seed=1)))
            for half in ("float16", "bfloat16")
        ),
        Case("rms_norm-eps-0", "rms_norm", (T((4, 6)), (6,)), {"eps": 0.0}),
    ]
    return rows


def _group_norm() -> list[Case]:
    def case(about: str, *args: Any, **kwargs: Any) -> Case:
        return Case(f"group_norm-{about}", "group_norm", args, kwargs)

    affine = (T((6,)), T((6,), seed=1))
    return [
        *(case(f"groups-{groups}", T((3, 6, 5)), groups, *affine) for groups in (1, 2, 3, 6)),
        *(case(f"rank-{len(shape)}", T(shape), 2, *affine) for shape in ((3, 6), (3, 6, 4, 5), (2, 6, 2, 2, 2))),
        *(case(dtype, T((3, 6, 5), dtype), 2, T((6,), dtype), T((6,), dtype, seed=1)) for dtype in FLOATS[1:]),
        case("float16-with-float32", T((3, 6, 5), "float16"), 2, *affine),
        case("no-weight", T((3, 6, 5)), 2),
        case("bias-only", T((3, 6, 5)), 2, None, T((6,))),
        case("eps", T((3, 6, 5)), 2, eps=0.5),
        case("special", T((3, 6, 7), values="special"), 2, *affine),
        case("empty", T((0, 6, 5)), 2, *affine),
        case("no-places", T((3, 6, 0)), 2, *affine),
        case("wide", T((2, 32, 33)), 4),
    ]


def flat_lrn(x: torch.Tensor, *args: Any) -> torch.Tensor:
    """local_response_norm of 4 axes in a dtype that torch's CPU kernel has for 3."""
    return F.local_response_norm(x.flatten(2), *args).view(x.shape)


def _local_response_norm() -> list[Case]:
    def case(about: str, *args: Any, reference: Any = None) -> Case:
        return Case(f"local_response_norm-{about}", "local_response_norm", args, reference=reference)

    return [
        *(case(f"size-{size}", T((2, 7, 9)), size, 0.5) for size in (1, 2, 3, 5, 7, 20)),
        *(case(f"rank-{len(shape)}", T(shape), 3, 0.5) for shape in ((2, 5, 3, 4), (2, 5, 2, 3, 2))),
        *(case(dtype, T((2, 5, 8), dtype), 3, 0.5) for dtype in (*FLOATS[1:], "int64")),
        case("float16-4d", T((2, 5, 3, 4), "float16"), 3, 0.5, reference=flat_lrn),
        case("defaults", T((2, 5, 8)), 5),
        case("beta-k", T((2, 5, 8)), 3, 0.1, 2.0, 3.0),
        case("negative-alpha", T((2, 5, 8)), 3, -0.01, 0.5, 2.0),
        case("special", T((2, 5, 14), values="special"), 3, 0.5),
        case("empty", T((0, 5, 8)), 3),
        case("no-channels", T((2, 0, 8)), 3),
        case("one-channel", T((2, 1, 8)), 5, 0.5),
    ]


def _normalize() -> list[Case]:
    def case(about: str, *args: Any, **kwargs: Any) -> Case:
        return Case(f"normalize-{about}", "normalize", args, kwargs)

    return [
        Case("normalize-worked", "normalize", (T(values=[[3.0, 4.0]]),), expected=[[0.6, 0.8]]),
        *(case(f"p-{p}", T((4, 7)), p) for p in (0.0, 0.5, 1.0, 2.0, 3.0, INF, -INF, -1.0)),
        *(case(f"dim-{dim}", T((2, 3, 4, 5)), dim=dim) for dim in (0, 1, 2, 3, -1, -4)),
        *(case(dtype, T((4, 7), dtype)) for dtype in FLOATS[1:]),
        case("vector", T((5,)), dim=0),
        case("scalar", T(()), dim=0),
        case("rank-5", T((2, 3, 2, 3, 2)), 1.0, 2),
        case("eps", T((4, 7)), eps=10.0),
        case("zeros", T(values=[[0.0, 0.0], [3.0, 4.0]])),
        case("special", T((4, 7), values="special")),
        case("empty-rows", T((0, 3))),
        case("empty-rows-p-inf", T((0, 3)), INF),
        case("empty-rows-p--1", T((0, 3)), -1.0),
        case("empty-axis", T((3, 0))),
    ]


CASES: list[Case] = [
    *normalize_running.CASES,
    *_over_last_axes(),
    *_group_norm(),
    *_local_response_norm(),
    *_normalize(),
]


def _bad_eps() -> list[Bad]:
    x = T((2, 4, 5))
    calls: dict[str, tuple[Any, ...]] = {
        "batch_norm": (x, *channels(4)),
        "instance_norm": (x,),
        "layer_norm": (x, (5,)),
        "group_norm": (x, 2),
    }
    rows = [
        Bad(f"{function}-eps-{eps}", function, args, "eps", {"eps": eps})
        for function, args in calls.items()
        for eps in (0.0, -1e-5, NAN, INF)
    ]
    rows += [Bad(f"rms_norm-eps-{eps}", "rms_norm", (x, (5,)), "eps", {"eps": eps}) for eps in (-1e-5, NAN, INF)]
    rows += [Bad(f"normalize-eps-{eps}", "normalize", (x,), "eps", {"eps": eps}) for eps in (-1.0, NAN, INF, 1e39)]
    rows += [
        Bad(f"{function}-momentum-{momentum}", function, calls[function], "momentum", {"momentum": momentum})
        for function in ("batch_norm", "instance_norm")
        for momentum in (NAN, INF)
    ]
    return rows


def _bad_shapes() -> list[Bad]:
    x, rows = T((2, 4, 6)), []
    for function in ("layer_norm", "rms_norm"):
        rows += [
            Bad(f"{function}-{about}", function, (x, shape), "normalized_shape")
            for about, shape in (
                ("other-shape", (5,)),
                ("leading-shape", (2, 4)),
                ("too-many", (1, 2, 4, 6)),
                ("negative", (-1,)),
                ("2**62", (2**62,)),
                ("2**63-1", (2**63 - 1, 6)),
                ("nine-sizes", (1,) * 9),
            )
        ]
        rows += [
            Bad(f"{function}-scalar", function, (T(()), (1,)), "normalized_shape"),
            Bad(f"{function}-weight-shape", function, (x, (4, 6), T((6,))), "weight"),
            Bad(f"{function}-weight-dtype", function, (x, (6,), T((6,), "float64")), "weight"),
            Bad(f"{function}-int64", function, (T((2, 6), "int64"), (6,)), "input"),
            Bad(f"{function}-huge-but-empty", function, (T((2**40, 0)), (0,)), "input"),
        ]
    rows += [
        Bad("layer_norm-bias-shape", "layer_norm", (x, (6,), None, T((4,))), "bias"),
        Bad("layer_norm-bias-dtype", "layer_norm", (x, (6,), T((6,)), T((6,), "bfloat16")), "bias"),
        Bad("rms_norm-half-with-float32", "rms_norm", (T((2, 6), "float16"), (6,), T((6,))), "weight"),
        *(
            Bad(f"group_norm-num_groups-{groups}", "group_norm", (x, groups), "num_groups")
            for groups in (0, -1, 3, 8, 2**31, 2**32 + 2, 2**62, -(2**63))
        ),
        Bad("group_norm-groups-of-nothing", "group_norm", (T((2, 0, 3)), 2**62), "num_groups"),
        Bad("group_norm-one-value", "group_norm", (T((1, 4)), 4), "input"),
        Bad("group_norm-vector", "group_norm", (T((4,)), 2), "input"),
        Bad("group_norm-weight-length", "group_norm", (x, 2, T((2,))), "weight"),
        Bad("group_norm-bias-length", "group_norm", (x, 2, None, T((6,))), "bias"),
        Bad("group_norm-weight-dtype", "group_norm", (x, 2, T((4,), "float64")), "weight"),
        Bad("group_norm-int8", "group_norm", (T((2, 4), "int8"), 2), "input"),
        Bad("group_norm-huge-but-empty", "group_norm", (T((2**40, 4, 0)), 2), "input"),
    ]
    return rows


def _bad_scalars() -> list[Bad]:
    x = T((2, 4, 6))
    return [
        *(
            Bad(f"local_response_norm-size-{size}", "local_response_norm", (x, size), "size")
            for size in (0, -1, 1025, 2**31, 2**62, -(2**63))
        ),
        *(
            Bad(f"local_response_norm-{field}-{value}", "local_response_norm", (x, 3), field, {field: value})
            for field in ("alpha", "beta", "k")
            for value in (NAN, INF)
        ),
        Bad(
            "local_response_norm-beta-above", "local_response_norm", (T((2, 4, 6), "float16"), 3), "beta", {"beta": 1e5}
        ),
        Bad("local_response_norm-2d", "local_response_norm", (T((2, 4)), 3), "input"),
        Bad("local_response_norm-int32", "local_response_norm", (T((2, 4, 6), "int32"), 3), "input"),
        Bad("normalize-p-nan", "normalize", (x, NAN), "p"),
        Bad("normalize-p-inf-of-nothing", "normalize", (T((3, 0)), INF), "p"),
        *(Bad(f"normalize-no-axis-{dim}", "normalize", (x,), "dim", {"dim": dim}) for dim in (3, -4, 2**31, -(2**63))),
        Bad("normalize-scalar-no-axis-1", "normalize", (T(()),), "dim"),
        Bad("normalize-int64", "normalize", (T((2, 4), "int64"),), "input"),
        Bad("normalize-huge-but-empty", "normalize", (T((2**40, 0)),), "input"),
    ]


BAD: list[Bad] = [*normalize_running.BAD, *_bad_eps(), *_bad_shapes(), *_bad_scalars()]
