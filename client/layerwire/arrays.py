"""What goes in and comes out as arrays: numpy, torch, or plain numbers to bytes and back.

It knows numpy, and torch only where the caller has imported it already; neither operators nor channels.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from layerwire.codec import DTYPE_NAMES, DTYPES, numpy_dtype
from layerwire.errors import InternalError, invalid
from layerwire.v1 import tensor_pb2

# Wire dtype and shape, as a plain tuple: a NamedTuple costs three times as much to make, and each call makes one.
Spec: TypeAlias = tuple[int, tuple[int, ...]]
Maker: TypeAlias = Callable[[tensor_pb2.Tensor], Any]  # makes an array of an answer's tensor

# dtype objects of this machine's byte order to wire dtypes. bfloat16 joins when the first array of it comes by.
WIRE_DTYPES: dict[Any, int] = {np.dtype(name): value for name, value in DTYPES.items() if name != "bfloat16"}
_NUMPY_DTYPES: dict[int, Any] = {value: dtype for dtype, value in WIRE_DTYPES.items()}
# What numbers become, as torch.tensor would have it.
_NUMBERS: dict[str, npt.DTypeLike] = {"b": np.bool_, "i": np.int64, "f": np.float32}


def taken(function: str, name: str, value: Any) -> tuple[Spec, bytes, Maker | None]:
    """A tensor's spec, a copy of its elements, and what makes answers like it: None for numpy's.

    Args:
        function: the operator called, for errors.
        name: the tensor's field, for errors.
        value: a numpy array, torch tensor, number, or nested lists of numbers.

    Raises:
        TypeError: it is none of these, or of a dtype without a place on the wire.
        InvalidArgumentError: the lists are ragged, or a number fits no dtype.
    """
    if _is_torch(value):
        return _taken_torch(function, name, value)
    array = value if isinstance(value, np.ndarray | np.generic) else _from_numbers(function, name, value)
    array = np.asarray(array)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    dtype = WIRE_DTYPES.get(native.dtype) or _new_wire_dtype(native.dtype)
    if dtype is None:
        raise TypeError(f"{function}: {name} has dtype {array.dtype.name[:40]}, not one of {', '.join(DTYPES)}")
    return (dtype, native.shape), native.tobytes(), None


def to_numpy(tensor: tensor_pb2.Tensor) -> npt.NDArray[Any]:
    """A writable array of an answer's tensor.

    Raises:
        InternalError: the answer's dtype, shape and bytes don't agree.
    """
    data, shape = bytearray(tensor.data), tuple(tensor.shape)
    try:
        dtype = _NUMPY_DTYPES.get(tensor.dtype) or numpy_dtype(tensor.dtype)
        array: npt.NDArray[Any] = np.ndarray(shape, dtype, data)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _malformed() from None
    if array.nbytes != len(data) or array.shape != shape:  # numpy takes -1 for "as much as there is"
        raise _malformed()
    return array


def _new_wire_dtype(dtype: npt.DTypeLike) -> int | None:
    code = DTYPES.get(np.dtype(dtype).name)  # ml_dtypes' bfloat16 is known by its name
    if code is not None:
        WIRE_DTYPES[dtype] = code
    return code


def _from_numbers(function: str, name: str, value: Any) -> npt.NDArray[Any]:
    leaf = value
    while isinstance(leaf, Sequence) and not isinstance(leaf, str | bytes) and len(leaf):
        leaf = leaf[0]
    if leaf is None or isinstance(leaf, str | bytes | dict | set):
        raise TypeError(f"{function}: {name} must be a tensor or numbers, got {type(leaf).__name__}")
    try:
        array = np.asarray(value)
    except OverflowError:
        raise invalid(function, name, "has an integer of more than 64 bits") from None
    except ValueError:
        raise invalid(function, name, "is ragged: its lists differ in length") from None
    if isinstance(leaf, np.ndarray | np.generic) or hasattr(leaf, "__array__"):
        return array
    if array.dtype.kind in "uO" and isinstance(leaf, int):
        raise invalid(function, name, "has an integer of more than 64 bits")
    if array.dtype.kind not in _NUMBERS:
        raise TypeError(f"{function}: {name} must be a tensor or numbers, got {type(leaf).__name__}")
    with np.errstate(over="ignore"):  # 1e300 becomes infinity, as in torch.tensor
        return array.astype(_NUMBERS[array.dtype.kind])


def _is_torch(value: Any) -> bool:
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)  # who has a tensor has imported torch
    return tensor is not None and isinstance(value, tensor)


def _taken_torch(function: str, name: str, tensor: Any) -> tuple[Spec, bytes, Maker]:
    torch = sys.modules["torch"]  # imported by the caller, or there would be no tensor

    dtype = DTYPES.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None or tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise TypeError(
            f"{function}: {name} must be a dense tensor with data, of dtype {', '.join(DTYPES)}, "
            f"got {tensor.dtype} on {tensor.device.type}"
        )
    here = tensor.detach().cpu().resolve_neg().contiguous()
    data = here.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else here.numpy()
    return (dtype, tuple(here.shape)), data.tobytes(), _torch_maker(tensor.device)


def _torch_maker(device: Any) -> Maker:
    torch = sys.modules["torch"]

    def make(message: tensor_pb2.Tensor) -> Any:
        try:
            dtype = getattr(torch, DTYPE_NAMES[message.dtype])
            shape, data = tuple(message.shape), bytearray(message.data)
            if math.prod(shape) * dtype.itemsize != len(data) or min(shape, default=0) < 0:
                raise _malformed()
            flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            return flat.reshape(shape).to(device)
        except (KeyError, OverflowError):
            raise _malformed() from None

    return make


def _malformed() -> InternalError:
    return InternalError("the server's answer holds a tensor whose dtype, shape and bytes don't agree")
