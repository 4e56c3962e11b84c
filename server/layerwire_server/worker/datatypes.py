"""Datatypes of the Open Inference Protocol and what they are here.

It knows both protocols' names and numbers; nothing of tensors or requests.
"""

from __future__ import annotations

from typing import NamedTuple

from layerwire.v1 import tensor_pb2


class Datatype(NamedTuple):
    """A datatype.

    Attributes:
        name: in requests and metadata; in configurations with TYPE_ before it.
        dtype: ours.
        contents: the field of InferTensorContents for its elements; "" where they come raw only.
    """

    name: str
    dtype: int
    contents: str


_TABLE = (
    Datatype("BOOL", tensor_pb2.DATA_TYPE_BOOL, "bool_contents"),
    Datatype("UINT8", tensor_pb2.DATA_TYPE_UINT8, "uint_contents"),
    Datatype("INT8", tensor_pb2.DATA_TYPE_INT8, "int_contents"),
    Datatype("INT16", tensor_pb2.DATA_TYPE_INT16, "int_contents"),
    Datatype("INT32", tensor_pb2.DATA_TYPE_INT32, "int_contents"),
    Datatype("INT64", tensor_pb2.DATA_TYPE_INT64, "int64_contents"),
    Datatype("FP16", tensor_pb2.DATA_TYPE_FLOAT16, ""),
    Datatype("BF16", tensor_pb2.DATA_TYPE_BFLOAT16, ""),
    Datatype("FP32", tensor_pb2.DATA_TYPE_FLOAT32, "fp32_contents"),
    Datatype("FP64", tensor_pb2.DATA_TYPE_FLOAT64, "fp64_contents"),
)
BY_NAME = {found.name: found for found in _TABLE}
NAMES = {found.dtype: found.name for found in _TABLE}
