"""THE table of operators: every operator the server runs, by family and name.

Adding one is a message in operators.proto, a class in a file here, a row below, a client method, and rows in
tests/operator_cases.py; tests/test_operator_names.py says which of them is missing.
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
