"""Names of element types in the Open Inference Protocol.

It knows neither the protocol's messages nor channels.
"""

from __future__ import annotations

from typing import NamedTuple


class Datatype(NamedTuple):
    """An element type.

    Attributes:
        dtype: torch's and numpy's name.
        contents: the field of InferTensorContents that holds such elements one by one; "" where they only come raw.
    """

    dtype: str
    contents: str


DATATYPES = {
    "BOOL": Datatype("bool", "bool_contents"),
    "UINT8": Datatype("uint8", "uint_contents"),
    "UINT16": Datatype("uint16", "uint_contents"),
    "UINT32": Datatype("uint32", "uint_contents"),
    "UINT64": Datatype("uint64", "uint64_contents"),
    "INT8": Datatype("int8", "int_contents"),
    "INT16": Datatype("int16", "int_contents"),
    "INT32": Datatype("int32", "int_contents"),
    "INT64": Datatype("int64", "int64_contents"),
    "FP16": Datatype("float16", ""),
    "BF16": Datatype("bfloat16", ""),
    "FP32": Datatype("float32", "fp32_contents"),
    "FP64": Datatype("float64", "fp64_contents"),
}
OF_DTYPES = {datatype.dtype: name for name, datatype in DATATYPES.items()}
