"""THE table of element types: torch's name, the wire's number, bytes, and the names that other formats have for them.

It knows neither numpy nor torch, and no message: the store's files, which have none, are written by it too.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class ElementType(NamedTuple):
    """One row of the table.

    Attributes:
        name: torch's, and numpy's (bfloat16 by way of ml_dtypes).
        code: its number in `layerwire.v1.DataType`.
        nbytes: bytes an element.
        safetensors: its name in safetensors files.
        inference: its name in the Open Inference Protocol; in configurations with TYPE_ before it.
        contents: the field of InferTensorContents for its elements; "" where they come raw only.
    """

    name: str
    code: int
    nbytes: int
    safetensors: str
    inference: str
    contents: str


ELEMENT_TYPES = (
    ElementType("float32", 1, 4, "F32", "FP32", "fp32_contents"),
    ElementType("float64", 2, 8, "F64", "FP64", "fp64_contents"),
    ElementType("float16", 3, 2, "F16", "FP16", ""),
    ElementType("bfloat16", 4, 2, "BF16", "BF16", ""),
    ElementType("int8", 5, 1, "I8", "INT8", "int_contents"),
    ElementType("int16", 6, 2, "I16", "INT16", "int_contents"),
    ElementType("int32", 7, 4, "I32", "INT32", "int_contents"),
    ElementType("int64", 8, 8, "I64", "INT64", "int64_contents"),
    ElementType("uint8", 9, 1, "U8", "UINT8", "uint_contents"),
    ElementType("bool", 10, 1, "BOOL", "BOOL", "bool_contents"),
)
DTYPES: dict[str, int] = {row.name: row.code for row in ELEMENT_TYPES}
DTYPE_NAMES: dict[int, str] = {row.code: row.name for row in ELEMENT_TYPES}
ITEMSIZES: dict[int, int] = {row.code: row.nbytes for row in ELEMENT_TYPES}
OF_SAFETENSORS: dict[str, ElementType] = {row.safetensors: row for row in ELEMENT_TYPES}
OF_INFERENCE: dict[str, ElementType] = {row.inference: row for row in ELEMENT_TYPES}
INFERENCE_NAMES: dict[int, str] = {row.code: row.inference for row in ELEMENT_TYPES}
MAX_AXES = 8


class TensorSpec(NamedTuple):
    """A tensor without its data: wire dtype and shape."""

    dtype: int
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return math.prod(self.shape) * ITEMSIZES[self.dtype]
