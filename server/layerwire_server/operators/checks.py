"""What the tensors of one call must agree on: dtype, shape, broadcasting, an axis that exists.

It knows specs, never data, and nothing of what an operator computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES, TensorSpec
from layerwire_server.operators.operator import Operator, Specs

_HALVES = frozenset((DTYPES["float16"], DTYPES["bfloat16"]))
_FLOAT32 = DTYPES["float32"]

# Kernels keep statistics for every row or channel, also of an input without elements: [2**40, 0] would take terabytes.
MAX_EMPTY_SIZES = 2**20


def check_dtypes(operator: Operator, specs: Specs) -> None:
    """Checks that every tensor has the first one's dtype.

    Raises:
        InvalidArgumentError: naming the first that has not.
    """
    first = specs[0]
    assert first is not None
    for role, spec in zip(operator.inputs, specs, strict=True):
        if spec is not None and spec.dtype != first.dtype:
            rule = f"must have input's dtype {DTYPE_NAMES[first.dtype]}, got {DTYPE_NAMES[spec.dtype]}"
            raise operator.invalid(role.name, rule)


def check_mixed_dtypes(operator: Operator, specs: Specs) -> None:
    """As check_dtypes; but with a float16 or bfloat16 input, all other tensors may be float32, as torch has it.

    Raises:
        InvalidArgumentError: naming the first that is otherwise.
    """
    first = specs[0]
    assert first is not None
    others = {spec.dtype for spec in specs[1:] if spec is not None}
    if first.dtype not in _HALVES or others != {_FLOAT32}:
        check_dtypes(operator, specs)


def check_shape(operator: Operator, field: str, spec: TensorSpec | None, shape: Sequence[int]) -> None:
    """Checks that a tensor, if there is one, has this shape.

    Raises:
        InvalidArgumentError: it has not.
    """
    if spec is not None and spec.shape != tuple(shape):
        raise operator.invalid(field, f"must have shape {list(shape)}, got {list(spec.shape)}")


def check_axis(operator: Operator, dim: int, spec: TensorSpec) -> None:
    """Checks that the input has an axis `dim`; a scalar counts as having one, as in torch.

    Raises:
        InvalidArgumentError: naming `dim`.
    """
    axes = max(len(spec.shape), 1)
    if not -axes <= dim < axes:
        raise operator.invalid("dim", f"must be from {-axes} to {axes - 1} for shape {list(spec.shape)}, got {dim}")


def check_empty(operator: Operator, spec: TensorSpec) -> None:
    """Checks that an input without elements isn't huge in its other sizes.

    Raises:
        InvalidArgumentError: naming `input`.
    """
    if 0 in spec.shape and math.prod(filter(None, spec.shape)) > MAX_EMPTY_SIZES:
        rule = f"has no elements, and its other sizes may multiply to {MAX_EMPTY_SIZES}, got {list(spec.shape)}"
        raise operator.invalid("input", rule)


def broadcast(operator: Operator, field: str, left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    """The shape that both are broadcast to, `left` being input's and `right` the field's.

    Raises:
        InvalidArgumentError: naming the field; there is none.
    """
    sizes = []
    for size, other in zip_longest(reversed(left), reversed(right), fillvalue=1):
        if size != other and 1 not in (size, other):
            raise operator.invalid(field, f"must broadcast with {list(left)} of input, got {list(right)}")
        sizes.append(other if size == 1 else size)
    return tuple(reversed(sizes))


def broadcast_multiple(shapes: Sequence[Sequence[int]], multiples: Sequence[int]) -> int | None:
    """row_multiple of what is broadcast: rows lie along the output's axis 0, and nothing else does."""
    axes = max(map(len, shapes))
    if len({shape[0] for shape, multiple in zip(shapes, multiples, strict=True) if multiple}) > 1:
        return None
    for shape, multiple in zip(shapes, multiples, strict=True):
        if len(shape) != axes if multiple else len(shape) == axes and shape[0] != 1:
            return None
    of_rows = {multiple for multiple in multiples if multiple}
    return of_rows.pop() if len(of_rows) == 1 else None
