"""Names of element types in the Open Inference Protocol, and arrays of its tensors.

It knows numpy; neither the protocol's messages nor channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from layerwire.wire.dtypes import ELEMENT_TYPES


class Datatype(NamedTuple):
    """An element type.

    Attributes:
        dtype: torch's and numpy's name.
        contents: the field of InferTensorContents that holds such elements one by one; "" where they only come raw.
    """

    dtype: str
    contents: str


DATATYPES = {row.inference: Datatype(row.name, row.contents) for row in ELEMENT_TYPES} | {  # and what only others have
    "UINT16": Datatype("uint16", "uint_contents"),
    "UINT32": Datatype("uint32", "uint_contents"),
    "UINT64": Datatype("uint64", "uint64_contents"),
}
OF_DTYPES = {datatype.dtype: name for name, datatype in DATATYPES.items()}


def array(name: str, datatype: str, shape: Sequence[int], content: bytes | Sequence[Any]) -> npt.NDArray[Any]:
    """An array of a tensor's raw bytes, or of its elements one by one.

    Raises:
        ValueError: they don't fit the shape, or the element type has no place in an array.
    """
    if datatype not in DATATYPES:
        raise ValueError(f"{name}: elements of {datatype or 'no datatype'} can't be compared")
    dtype = numpy_dtype(name, DATATYPES[datatype].dtype)
    flat: npt.NDArray[Any]
    if isinstance(content, bytes):
        flat = np.frombuffer(content, dtype) if len(content) % dtype.itemsize == 0 else np.empty(0, dtype)
    else:
        flat = np.array(content, dtype)
    if flat.size != math.prod(shape) or min(shape, default=0) < 0 or (content and not flat.size):
        unit = "bytes" if isinstance(content, bytes) else "elements"
        raise ValueError(f"{name}: {len(content)} {unit} don't make {datatype} {list(shape)}")
    return flat.reshape(tuple(shape))


def numpy_dtype(name: str, dtype: str) -> np.dtype[Any]:
    """The element type of numpy, little-endian.

    Raises:
        ValueError: numpy has none here.
    """
    if dtype == "bfloat16":
        try:
            import ml_dtypes  # type: ignore[import-not-found,unused-ignore]  # numpy alone has no bfloat16
        except ImportError:
            raise ValueError(f"{name}: bfloat16 can't be read without the package ml_dtypes") from None
        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(dtype).newbyteorder("<")
