"""Functions of torch that it takes apart, and the one operator that each is here.

It knows what torch makes of them; neither tracing nor naming. Arguments come back out of the parts:
local_response_norm's size is its average's window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from layerwire.export.graph import Value
from layerwire.export.refusal import LoweringError
from layerwire.export.traced_call import TracedCall
from layerwire.v1 import operators_pb2 as messages


@dataclass(frozen=True)
class Parts:
    """What a function was taken apart into: its only input, and arguments of its parts by "part.argument"."""

    call: TracedCall
    input: Value
    arguments: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        if name not in self.arguments:
            raise LoweringError(f"made of other parts than known, without {name}")
        return self.arguments[name]

    def activate(self, operator: messages.ActivateOperator) -> Value:
        """Its node."""
        return self.call.emit(operator, input=self.input)


Composite = Callable[[Parts], Value]


def _softsign(parts: Parts) -> Value:
    return parts.activate(messages.ActivateOperator(softsign=messages.Softsign()))


def _tanhshrink(parts: Parts) -> Value:
    return parts.activate(messages.ActivateOperator(tanhshrink=messages.Tanhshrink()))


def _softmin(parts: Parts) -> Value:
    cast = parts.call.dtype if parts.call.dtype != parts.input.dtype else 0
    message = messages.Softmin(dim=parts["softmax.dim"], dtype=cast)  # type: ignore[arg-type]
    return parts.activate(messages.ActivateOperator(softmin=message))


def _softshrink(parts: Parts) -> Value:
    message = messages.Softshrink(lambd=parts["gt.other"])
    return parts.activate(messages.ActivateOperator(softshrink=message))


def _hardshrink(parts: Parts) -> Value:
    message = messages.Hardshrink(lambd=parts["le.other"])
    return parts.activate(messages.ActivateOperator(hardshrink=message))


def _local_response_norm(parts: Parts) -> Value:
    pool = "avg_pool2d" if "avg_pool2d.kernel_size" in parts.arguments else "avg_pool3d"
    norm = messages.LocalResponseNorm(
        size=parts[f"{pool}.kernel_size"][0],
        alpha=parts["mul.other"],
        beta=parts["pow.exponent"],
        k=parts["add.other"],
    )
    return parts.call.emit(messages.NormalizeOperator(local_response_norm=norm), input=parts.input)


def _normalize(parts: Parts) -> Value:
    dims = parts["linalg_vector_norm.dim"]
    if len(dims) != 1:
        raise LoweringError("a norm over several axes")
    eps = parts["clamp_min.min"]
    norm = messages.LpNormalize(p=parts["linalg_vector_norm.ord"], dim=dims[0], eps=eps)
    return parts.call.emit(messages.NormalizeOperator(normalize=norm), input=parts.input)


def _lp_pool(dims: int) -> Composite:
    def lower(parts: Parts) -> Value:
        average = f"avg_pool{dims}d"
        pool = messages.LpPool(
            spatial_dims=dims,
            norm_type=parts["pow.exponent"],
            kernel_size=parts[f"{average}.kernel_size"],
            stride=parts[f"{average}.stride"],
            ceil_mode=parts[f"{average}.ceil_mode"],
        )
        return parts.call.emit(messages.PoolOperator(lp_pool=pool), input=parts.input)

    return lower


# By the function's name, which torch.export keeps with the parts.
COMPOSITES: dict[str, Composite] = {
    "softsign": _softsign,
    "tanhshrink": _tanhshrink,
    "softmin": _softmin,
    "softshrink": _softshrink,
    "hardshrink": _hardshrink,
    "local_response_norm": _local_response_norm,
    "normalize": _normalize,
    "lp_pool1d": _lp_pool(1),
    "lp_pool2d": _lp_pool(2),
    "lp_pool3d": _lp_pool(3),
}
