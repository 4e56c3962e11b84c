"""THE table of element types, and a tensor without its data.

It knows the wire's numbers for them; neither numpy nor torch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from layerwire.v1 import tensor_pb2

DataType = tensor_pb2.DataType

# name -> (wire value, bytes an element). The names are torch's, and numpy's (bfloat16 by way of ml_dtypes).
_TABLE: dict[str, tuple[int, int]] = {
    "float32": (tensor_pb2.DATA_TYPE_FLOAT32, 4),
    "float64": (tensor_pb2.DATA_TYPE_FLOAT64, 8),
    "float16": (tensor_pb2.DATA_TYPE_FLOAT16, 2),
    "bfloat16": (tensor_pb2.DATA_TYPE_BFLOAT16, 2),
    "int8": (tensor_pb2.DATA_TYPE_INT8, 1),
    "int16": (tensor_pb2.DATA_TYPE_INT16, 2),
    "int32": (tensor_pb2.DATA_TYPE_INT32, 4),
    "int64": (tensor_pb2.DATA_TYPE_INT64, 8),
    "uint8": (tensor_pb2.DATA_TYPE_UINT8, 1),
    "bool": (tensor_pb2.DATA_TYPE_BOOL, 1),
}
DTYPES: dict[str, int] = {name: value for name, (value, _) in _TABLE.items()}
DTYPE_NAMES: dict[int, str] = {value: name for name, (value, _) in _TABLE.items()}
ITEMSIZES: dict[int, int] = dict(_TABLE.values())
MAX_AXES = 8


class TensorSpec(NamedTuple):
    """A tensor without its data: wire dtype and shape."""

    dtype: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * ITEMSIZES[self.dtype]
