"""How far predicted work is from the time that torch takes; `python -m tools.predictions [DTYPE ...]`.

It prints the calls whose prediction is more than 3 times off. It is no test: seconds are the machine's, and which
instructions a CPU has decides what is fast on it. Predictions are in operations of a float32 matrix product, measured
first.
"""

from __future__ import annotations

import inspect
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from tests.operator_cases import Case, T
from tests.operators.local import Local, request_of

from layerwire.calls import ACTIVATIONS, OperatorCalls
from layerwire.errors import LayerwireError

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64")
WITHIN = 3.0
LEAST_SECONDS = 3e-5  # below it a call's time is mostly torch's own overhead
APART = {"softmax", "softmin", "log_softmax"}  # measured along several axes


def best_seconds(call: Callable[[], Any], budget_seconds: float = 0.06) -> float:
    """The least time that a call takes."""
    call()
    best, began, count = float("inf"), time.perf_counter(), 0
    while count < 3 or (time.perf_counter() - began < budget_seconds and count < 50):
        start = time.perf_counter()
        call()
        best, count = min(best, time.perf_counter() - start), count + 1
    return best


def activations(dtype: str) -> Iterator[tuple[str, str, tuple[Any, ...], dict[str, Any]]]:
    """Calls of activations: what to call them in print, function, arguments."""
    x = T((64, 64, 16, 16), dtype)
    for function in sorted(ACTIVATIONS - APART):
        if not _needs(function):
            yield function, function, (x,), {}
    yield "gelu tanh", "gelu", (x,), {"approximate": "tanh"}
    yield "hardtanh 0 to 3", "hardtanh", (x, 0, 3), {}
    yield "threshold", "threshold", (x, 1, 2), {}
    yield "rrelu training", "rrelu", (x,), {"training": True, "seed": 1}
    yield "prelu one", "prelu", (x, T((1,), dtype)), {}
    yield "prelu channels", "prelu", (x, T((64,), dtype)), {}
    for function in sorted(APART):
        for about, shape, dim in (
            ("dim 1", x.shape, 1),
            ("last", x.shape, -1),
            ("wide", (64, 4096), 1),
            ("dim 0", (256, 999), 0),
        ):
            yield f"{function} {about}", function, (T(shape, dtype), dim), {}


def _needs(function: str) -> bool:
    """Whether an activation has arguments without defaults beside its input."""
    parameters = inspect.signature(getattr(OperatorCalls, function)).parameters.values()
    return sum(parameter.default is parameter.empty for parameter in parameters) > 2


def spatial(dtype: str) -> Iterator[tuple[str, str, tuple[Any, ...], dict[str, Any]]]:
    """The same of pooling and convolution."""
    for dims, shape in ((1, (8, 64, 1024)), (2, (8, 16, 48, 48)), (3, (2, 8, 24, 24, 24))):
        x, channels, d = T(shape, dtype), shape[1], f"{dims}d"
        for pool in ("max_pool", "avg_pool"):
            for kernel, stride, padding in ((2, 2, 0), (3, 1, 1), (7, 1, 3)):
                yield f"{pool}{d} {kernel}/{stride}", f"{pool}{d}", (x, kernel, stride, padding), {}
        yield f"max_pool{d} indices", f"max_pool{d}", (x, 3, 1, 1), {"return_indices": True}
        yield f"max_pool{d} dilated", f"max_pool{d}", (x, 3, 1, 1, 2), {}
        yield f"lp_pool{d}", f"lp_pool{d}", (x, 2.0, 3), {}
        for pool in ("adaptive_max_pool", "adaptive_avg_pool"):
            for size in (1, 5):
                yield f"{pool}{d} {size}", f"{pool}{d}", (x, size), {}
        if dims > 1:
            samples = T((shape[0], channels, dims), dtype, "uniform")
            yield f"fractional{d}", f"fractional_max_pool{d}", (x, 2, 11), {"_random_samples": samples}
        for function, name in ((f"conv{d}", "conv"), (f"conv_transpose{d}", "transposed")):
            for about, weight, parameters in (
                ("3", (32, channels, 3) if name == "conv" else (channels, 16, 3), {"padding": 1}),
                ("1", (32, channels, 1) if name == "conv" else (channels, 16, 1), {}),
                ("depthwise", (channels, 1, 3), {"groups": channels, "padding": 1}),
                ("dilated", (16, channels, 3) if name == "conv" else (channels, 16, 3), {"dilation": 2, "padding": 2}),
                ("strided", (32, channels, 3) if name == "conv" else (channels, 16, 3), {"stride": 2}),
            ):
                yield f"{name}{d} {about}", function, (x, T((*weight[:2], *weight[2:] * dims), dtype)), parameters
    x = T((8, 16, 48, 48), dtype)
    yield "unfold", "unfold", (x, 3, 1, 1), {}
    yield "fold", "fold", (T((8, 144, 48 * 48), dtype), 48, 3, 1, 1), {}
    yield "conv_tbc", "conv_tbc", (T((256, 8, 64), dtype), T((3, 64, 64), dtype), T((64,), dtype)), {}


def others(dtype: str) -> Iterator[tuple[str, str, tuple[Any, ...], dict[str, Any]]]:
    """The same of linear and normalisation."""
    yield "linear", "linear", (T((256, 512), dtype), T((512, 512), dtype)), {}
    yield "linear one row", "linear", (T((1, 512), dtype), T((2048, 512), dtype)), {}
    yield "linear narrow", "linear", (T((4096, 16), dtype), T((16, 16), dtype)), {}
    yield "bilinear", "bilinear", (T((64, 32), dtype), T((64, 32), dtype), T((32, 32, 32), dtype)), {}
    x, square = T((8, 16, 48, 48), dtype), T((512, 512), dtype)
    yield "layer_norm", "layer_norm", (square, 512), {}
    yield "layer_norm short", "layer_norm", (T((8192, 16), dtype), 16), {}
    yield "rms_norm", "rms_norm", (square, 512), {}
    yield "rms_norm short", "rms_norm", (T((8192, 16), dtype), 16), {}
    yield "group_norm", "group_norm", (x, 4), {}
    yield "instance_norm", "instance_norm", (x,), {}
    yield "local_response_norm", "local_response_norm", (x, 5), {}
    yield "normalize 2", "normalize", (square,), {}
    yield "normalize 3", "normalize", (square, 3.0), {}
    yield "batch_norm", "batch_norm", (x, T((16,), dtype), T((16,), dtype, "positive")), {}
    yield "batch_norm training", "batch_norm", (x, None, None), {"training": True}


def predicted_and_actual(local: Local, case: Case, unit_seconds: float) -> tuple[float, float] | None:
    """Seconds as predicted and as measured; None where the operator doesn't take the dtype."""
    try:
        plan = local.decode(case).plan
    except LayerwireError:
        return None
    values = request_of(case).tensors
    roles = zip(plan.operator.inputs, plan.specs, strict=True)
    tensors = [None if spec is None else values[role.name] for role, spec in roles]
    return plan.cost * unit_seconds, best_seconds(lambda: plan.operator.run(*tensors))


def main() -> None:
    """Prints what is off, and how many of all."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    local, square = Local(), torch.randn(512, 512)
    unit_seconds = best_seconds(lambda: square @ square, 0.3) / (2 * 512**3)
    count = off = 0
    for dtype in sys.argv[1:] or DTYPES:
        for name, function, args, kwargs in (*activations(dtype), *spatial(dtype), *others(dtype)):
            seconds = predicted_and_actual(local, Case(name, function, args, kwargs), unit_seconds)
            if seconds is None or seconds[1] < LEAST_SECONDS:
                continue
            count += 1
            ratio = seconds[0] / seconds[1]
            if not 1 / WITHIN <= ratio <= WITHIN:
                off += 1
                print(f"{dtype:9} {name:28} predicted {ratio:7.2f} times the actual {seconds[1] * 1e3:.3f} ms")
    print(f"{off} of {count} are more than {WITHIN:g} times off; an operation took {unit_seconds * 1e9:.4f} ns")


if __name__ == "__main__":
    main()
