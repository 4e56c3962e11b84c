"""Cases of the normalisations that know running statistics: batch_norm and instance_norm.

batch_norm with return_statistics has no twin in torch: its reference is torch's own update of running statistics, and
numpy's mean and variance.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from tests.operator_cases import Bad, Case, T

FLOATS = ("float32", "float64", "float16", "bfloat16")
INF, NAN = math.inf, math.nan
STATISTICS = {"float32": (1e-5, 1e-5), "float64": (1e-12, 1e-12), "float16": (2e-3, 2e-3), "bfloat16": (2e-2, 2e-2)}


def channels(count: int, dtype: str = "float32", *, affine: bool = True) -> tuple[T | None, ...]:
    """running_mean, running_var, weight, bias."""
    running = (T((count,), dtype, seed=1), T((count,), dtype, "positive", seed=2))
    return (*running, T((count,), dtype, seed=3), T((count,), dtype, seed=4)) if affine else running


def on_copies(function: Any) -> Any:
    """torch's function on copies of running statistics, which it would update in place."""

    def reference(x: torch.Tensor, mean: Any = None, var: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        copies = (None if statistic is None else statistic.clone() for statistic in (mean, var))
        return function(x, *copies, *args, **kwargs)

    return reference


def with_statistics(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    *,
    return_statistics: bool,
    **kwargs: Any,
) -> tuple[torch.Tensor, ...]:
    """batch_norm in training with what it computed on the way."""
    assert return_statistics
    running = () if running_mean is None or running_var is None else (running_mean.clone(), running_var.clone())
    output = F.batch_norm(x, *(running or (None, None)), weight, bias, **kwargs)
    values = x.transpose(0, 1).flatten(1).double().numpy()
    statistics = (statistic for statistic in (weight, bias, running_mean, running_var) if statistic is not None)
    dtype = next((statistic.dtype for statistic in statistics), x.dtype)
    batch = (torch.from_numpy(values.mean(1)).to(dtype), torch.from_numpy(values.var(1)).to(dtype))
    return (output, *batch, *running)


def batch_norm(about: str, *args: Any, tolerance: tuple[float, float] | None = None, **kwargs: Any) -> Case:
    """A case of batch_norm; by the batch's own statistics if `training` is among kwargs."""
    if kwargs.get("return_statistics"):
        return Case(
            f"batch_norm-{about}", "batch_norm", args, kwargs, with_statistics, tolerance=tolerance or (1e-5, 1e-5)
        )
    return Case(f"batch_norm-{about}", "batch_norm", args, kwargs, on_copies(F.batch_norm), tolerance=tolerance)


def instance_norm(about: str, *args: Any, **kwargs: Any) -> Case:
    """A case of instance_norm."""
    return Case(f"instance_norm-{about}", "instance_norm", args, kwargs, on_copies(F.instance_norm))


def _batch_norm() -> list[Case]:
    shapes = ((5, 3), (4, 3, 7), (2, 3, 5, 6), (2, 3, 2, 3, 4))
    rows = [batch_norm(f"rank-{len(shape)}", T(shape), *channels(3)) for shape in shapes]
    rows += [batch_norm(f"training-rank-{len(shape)}", T(shape), *channels(3), training=True) for shape in shapes]
    rows += [batch_norm(dtype, T((4, 3, 9), dtype), *channels(3, dtype)) for dtype in FLOATS[1:]]
    rows += [
        batch_norm(f"training-{dtype}", T((4, 3, 9), dtype), *channels(3, dtype), training=True) for dtype in FLOATS
    ]
    for half in ("float16", "bfloat16"):
        rows += [
            batch_norm(f"{half}-with-float32", T((4, 3, 9), half), *channels(3)),
            batch_norm(f"{half}-with-float32-running", T((4, 3, 9), half), *channels(3, affine=False)),
            batch_norm(
                f"statistics-{half}-with-float32",
                T((4, 3, 9), half),
                *channels(3),
                training=True,
                return_statistics=True,
                tolerance=STATISTICS[half],
            ),
        ]
    mean, var, weight, bias = channels(3)
    x = T((4, 3, 9))
    rows += [
        batch_norm("no-weight", x, mean, var, None, bias),
        batch_norm("no-bias", x, mean, var, weight),
        batch_norm("eps", x, *channels(3), eps=0.5),
        batch_norm("special", T((4, 3, 9), values="special"), *channels(3)),
        batch_norm("special-running", x, T(values=[NAN, INF, 0.0]), T(values=[1.0, INF, 0.0])),
        batch_norm("one-sample", T((1, 3, 9)), *channels(3)),
        batch_norm("one-value", T((1, 3)), *channels(3)),
        batch_norm("empty", T((0, 3, 9)), *channels(3)),
        batch_norm("no-channels", T((2, 0, 4)), T((0,)), T((0,))),
        batch_norm("training-no-running", x, None, None, weight, bias, training=True),
        batch_norm("training-plain", x, None, None, training=True),
        batch_norm("training-special", T((4, 3, 9), values="special"), None, None, training=True),
        batch_norm("training-empty", T((0, 3, 9)), None, None, training=True),
        *(
            batch_norm(
                f"statistics-{dtype}",
                T((4, 3, 9), dtype),
                *channels(3, dtype),
                training=True,
                return_statistics=True,
                tolerance=STATISTICS[dtype],
            )
            for dtype in FLOATS
        ),
        batch_norm("statistics-no-running", x, None, None, training=True, return_statistics=True),
        batch_norm("statistics-momentum", x, mean, var, training=True, momentum=0.7, return_statistics=True),
        batch_norm("statistics-momentum-1", x, mean, var, training=True, momentum=1, eps=0.1, return_statistics=True),
        batch_norm("statistics-2d", T((6, 4)), *channels(4), training=True, return_statistics=True),
        batch_norm("statistics-5d", T((2, 3, 2, 3, 4)), *channels(3), training=True, return_statistics=True),
    ]
    return rows


def _instance_norm() -> list[Case]:
    shapes = ((4, 3, 7), (2, 3, 5, 6), (2, 3, 2, 3, 4))
    rows = [instance_norm(f"rank-{len(shape)}", T(shape)) for shape in shapes]
    rows += [instance_norm(f"running-rank-{len(shape)}", T(shape), *channels(3), False) for shape in ((5, 3), *shapes)]
    rows += [instance_norm(dtype, T((4, 3, 9), dtype), *channels(3, dtype)) for dtype in FLOATS[1:]]
    rows += [instance_norm(f"running-{dtype}", T((4, 3, 9), dtype), *channels(3, dtype), False) for dtype in FLOATS[1:]]
    x = T((4, 3, 9))
    rows += [
        instance_norm("affine", x, None, None, T((3,)), T((3,), seed=1)),
        instance_norm("affine-with-running", x, *channels(3)),
        instance_norm("eps", x, eps=0.5),
        instance_norm("running-eps", x, *channels(3), use_input_stats=False, eps=0.5),
        instance_norm("float16-with-float32", T((4, 3, 9), "float16"), None, None, T((3,)), T((3,), seed=1)),
        instance_norm("special", T((4, 3, 14), values="special")),
        instance_norm("one-sample", T((1, 3, 9))),
        instance_norm("empty", T((0, 3, 9))),
        instance_norm("no-places", T((2, 3, 0))),
    ]
    return rows


def _bad_running() -> list[Bad]:
    x, (mean, var, weight, _) = T((2, 4, 5)), channels(4)
    long, double = T((5,), values="positive"), T((4,), "float64", "positive")
    rows = []
    for function, use, own in (
        ("batch_norm", {"training": False}, "training"),
        ("instance_norm", {}, "use_input_stats"),
    ):
        evaluation = use or {"use_input_stats": False}
        rows += [
            Bad(f"{function}-running_mean-length", function, (x, long, var), "running_mean", evaluation),
            Bad(f"{function}-running_var-length", function, (x, mean, long), "running_var", evaluation),
            Bad(f"{function}-running_mean-empty", function, (x, T((0,)), var), "running_mean", evaluation),
            Bad(f"{function}-running_var-matrix", function, (x, mean, T((4, 1))), "running_var", evaluation),
            Bad(f"{function}-running_mean-dtype", function, (x, double, var), "running_mean", evaluation),
            Bad(f"{function}-running_var-dtype", function, (x, mean, double), "running_var", evaluation),
            Bad(f"{function}-running_mean-missing", function, (x, None, var), "running_mean", evaluation),
            Bad(f"{function}-running_var-missing", function, (x, mean, None), "running_var", evaluation),
            Bad(f"{function}-nothing-running", function, (x, None, None), "running_mean", evaluation),
            Bad(
                f"{function}-running_var-negative",
                function,
                (x, mean, T(values=[1.0, -1e-9, 1.0, 1.0])),
                "running_var",
                evaluation,
            ),
            Bad(
                f"{function}-running_var-minus-inf",
                function,
                (x, mean, T(values=[1.0, 1.0, 1.0, -INF])),
                "running_var",
                evaluation,
            ),
            Bad(f"{function}-half-{own}-length", function, (x, long, var), "running_mean", {own: True}),
            Bad(f"{function}-weight-length", function, (x, mean, var, long), "weight"),
            Bad(f"{function}-bias-length", function, (x, mean, var, weight, long), "bias"),
            Bad(f"{function}-weight-dtype", function, (x, mean, var, double), "weight"),
            Bad(f"{function}-bias-dtype", function, (x, mean, var, weight, double), "bias"),
            Bad(f"{function}-vector", function, (T((4,)), mean, var), "input"),
            Bad(f"{function}-scalar", function, (T(()), mean, var), "input"),
            Bad(f"{function}-int32", function, (T((2, 4, 5), "int32"), mean, var), "input"),
        ]
    rows += [
        Bad("batch_norm-training-one-value", "batch_norm", (T((1, 4)), mean, var), "input", {"training": True}),
        Bad("batch_norm-training-one-value-3d", "batch_norm", (T((1, 4, 1)), None, None), "input", {"training": True}),
        Bad(
            "batch_norm-statistics-in-evaluation",
            "batch_norm",
            (x, mean, var),
            "return_statistics",
            {"return_statistics": True},
        ),
        Bad("batch_norm-huge-but-empty", "batch_norm", (T((0, 2**40)), None, None), "input", {"training": True}),
        Bad("batch_norm-half-mixture", "batch_norm", (T((2, 4), "float16"), mean, T((4,), "float16")), "running_mean"),
        Bad("instance_norm-one-place", "instance_norm", (T((2, 4, 1)),), "input"),
        Bad("instance_norm-2d", "instance_norm", (T((2, 4)),), "input"),
        Bad("instance_norm-huge-but-empty", "instance_norm", (T((2**20, 2**20, 0)),), "input"),
    ]
    return rows


CASES: list[Case] = [*_batch_norm(), *_instance_norm()]

BAD: list[Bad] = _bad_running()
