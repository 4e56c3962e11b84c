"""Tensors between messages and torch: what a message claims is checked here, in Python integers, before torch sees it.

It knows messages and torch; nothing of operators or lanes.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch

from layerwire.errors import invalid
from layerwire.v1 import tensor_pb2
from layerwire.wire.dtypes import DTYPE_NAMES, ITEMSIZES, MAX_AXES, TensorSpec
from layerwire_server.operators.operator import TORCH_DTYPES, WIRE_DTYPES

BOOL = tensor_pb2.DATA_TYPE_BOOL
_MOST_BYTES = 2**62  # strides of torch's tensors are int64

# Messages' bytes are immutable and torch has no such notion. Operators never write to their inputs.
warnings.filterwarnings("ignore", message="The given buffer is not writable", category=UserWarning)


def spec_of(message: tensor_pb2.Tensor, operator: str, field: str) -> TensorSpec:
    """Dtype and shape that a message claims.

    Raises:
        InvalidArgumentError: no such dtype, too many axes, a negative size, or more bytes than can be counted.
    """
    dtype = message.dtype
    if dtype not in DTYPE_NAMES:
        raise invalid(operator, field, f"must have a dtype of DataType, got {dtype}")
    return checked_spec(dtype, tuple(message.shape), operator, field)


def checked_spec(dtype: int, shape: tuple[int, ...], operator: str, field: str) -> TensorSpec:
    """The spec of a dtype and a shape that somebody claims.

    Raises:
        InvalidArgumentError: too many axes, a negative size, or more bytes than can be counted.
    """
    if len(shape) > MAX_AXES:
        raise invalid(operator, field, f"must have at most {MAX_AXES} axes, got {len(shape)}")
    if min(shape, default=0) < 0:
        raise invalid(operator, field, f"must have sizes of at least 0, got {list(shape)}")
    if math.prod(max(size, 1) for size in shape) * ITEMSIZES[dtype] > _MOST_BYTES:
        raise invalid(operator, field, f"must have fewer elements, got {list(shape)}")
    return TensorSpec(dtype, shape)


def spec_of_tensor(tensor: torch.Tensor) -> TensorSpec:
    """Dtype and shape of a tensor whose dtype has a place on the wire."""
    return TensorSpec(WIRE_DTYPES[tensor.dtype], tuple(tensor.shape))


def check_data(data: bytes, spec: TensorSpec, operator: str, field: str) -> None:
    """Checks that data is what the spec says.

    Raises:
        InvalidArgumentError: it is longer or shorter, or a bool is neither 0 nor 1.
    """
    check_length(len(data), spec, operator, field)
    if spec.dtype == BOOL:
        check_bools(data, operator, field)


def check_length(nbytes: int, spec: TensorSpec, operator: str, field: str) -> None:
    """Checks that there is as much data as the spec says.

    Raises:
        InvalidArgumentError: it is more or less.
    """
    if nbytes != spec.nbytes:
        claim = f"{DTYPE_NAMES[spec.dtype]} {list(spec.shape)}"
        raise invalid(operator, field, f"must have {spec.nbytes} bytes of data for {claim}, got {nbytes}")


def check_bools(data: bytes | memoryview, operator: str, field: str) -> None:
    """Checks the elements of a bool tensor.

    Raises:
        InvalidArgumentError: one is neither 0 nor 1.
    """
    if data and int(np.frombuffer(data, np.uint8).max()) > 1:
        raise invalid(operator, field, "must have bytes of 0 and 1, as its dtype is bool")


def to_torch(data: bytes | bytearray | memoryview, spec: TensorSpec) -> torch.Tensor:
    """A tensor on the data, uncopied; never to be written to."""
    dtype = TORCH_DTYPES[spec.dtype]
    if not data:
        return torch.empty(spec.shape, dtype=dtype)
    tensor = torch.frombuffer(data, dtype=dtype)
    return tensor if len(spec.shape) == 1 else tensor.view(spec.shape)


def to_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a CPU tensor, uncopied if it is contiguous."""
    if not tensor.numel():
        return memoryview(b"")
    if tensor.dtype is torch.bfloat16:  # numpy has none
        tensor = tensor.view(torch.int16)
    return tensor.contiguous().numpy().data.cast("B")
