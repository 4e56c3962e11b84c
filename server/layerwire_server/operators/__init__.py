"""THE table of operators: every operator the server runs, by family and name, out of each family's own list.

It knows families; no operator by name. CONTRIBUTING.md says how one is added.
"""

from __future__ import annotations

from layerwire_server.operators import (
    activate,
    convolve,
    linear,
    normalize,
    pool,
    transform_arithmetic,
    transform_shape,
    transform_spatial,
    unpool,
)
from layerwire_server.operators.operator import Operator

OPERATORS: dict[str, dict[str, type[Operator]]] = {
    family: {operator.name: operator for operator in module.OPERATORS}
    for family, module in {
        "pool": pool,
        "unpool": unpool,
        "linear": linear,
        "activate": activate,
        "convolve": convolve,
        "normalize": normalize,
    }.items()
}

# Those that exist in programs only, by their fields in TransformOperator.
TRANSFORMS: dict[str, type[Operator]] = {
    operator.name: operator
    for module in (transform_shape, transform_arithmetic, transform_spatial)
    for operator in module.OPERATORS
}
