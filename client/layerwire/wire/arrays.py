"""Turns arrays, tensors and plain numbers into a call's bytes, and an answer's bytes into what the caller uses.

It knows numpy, and torch only where the caller has imported it already; neither operators nor channels.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from layerwire.errors import InternalError, InvalidArgumentError, invalid
from layerwire.v1 import tensor_pb2
from layerwire.wire.dtypes import DTYPE_NAMES, DTYPES, ITEMSIZES, TensorSpec
from layerwire.wire.framing import bare
from layerwire.wire.safetensors import Content
from layerwire.wire.shared_memory import ALIGNMENT_BYTES

# Wire dtype and shape, as a plain tuple: a NamedTuple costs three times as much to make, and each call makes one.
Spec: TypeAlias = tuple[int, tuple[int, ...]]
# Makes the arrays of so many answers, of their spec and their data one after another.
Maker: TypeAlias = Callable[[Spec, int, bytes | memoryview], list[Any]]

# Answers share the memory of their column up to here; of a larger one, whoever keeps one row would keep all.
SHARED_BYTES = 1 << 14
_HUGE_BYTES = 1 << 22

# dtype objects of this machine's byte order to wire dtypes. bfloat16 joins when the first array of it comes by.
WIRE_DTYPES: dict[Any, int] = {np.dtype(name): value for name, value in DTYPES.items() if name != "bfloat16"}
_NUMPY_DTYPES: dict[int, Any] = {value: dtype for dtype, value in WIRE_DTYPES.items()}
# What numbers become, as torch.tensor would have it.
_NUMBERS: dict[str, npt.DTypeLike] = {"b": np.bool_, "i": np.int64, "f": np.float32}


def content(function: str, name: str, value: Any) -> Content:
    """A tensor as content of a file: its elements stay where they are if they are on the CPU, row-major.

    Raises as `serialize`.
    """
    (dtype, shape), array, _ = spec_and_elements(function, name, value)
    elements = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return Content(dtype, shape, lambda: elements.data)


def row_major_bytes(array: npt.NDArray[Any]) -> bytes | memoryview:
    """A copy of an array's elements."""
    return array.tobytes()


def serialize(
    function: str,
    name: str,
    value: Any,
    elements: Callable[[npt.NDArray[Any]], bytes | memoryview] = row_major_bytes,
) -> tuple[Spec, bytes | memoryview, Maker | None]:
    """A tensor's spec, a copy of its elements, and what makes answers like it: None for numpy's.

    Args:
        function: the operator called, for errors.
        name: the tensor's field, for errors.
        value: a numpy array, torch tensor, number, or nested lists of numbers.
        elements: makes the copy.

    Raises:
        TypeError: it is none of these, of a dtype without a place on the wire, or its data aren't all there is to it:
            masked, sparse, quantized.
        InvalidArgumentError: the lists are ragged, or a number fits no dtype.
    """
    spec, array, make = spec_and_elements(function, name, value)
    return spec, elements(array), make


def spec_and_elements(function: str, name: str, value: Any) -> tuple[Spec, npt.NDArray[Any], Maker | None]:
    """A tensor's spec, and its elements as an array of numbers of their size; a copy only where there must be one."""
    if _is_torch(value):
        return _of_torch(function, name, value)
    array = value if isinstance(value, np.ndarray | np.generic) else _from_numbers(function, name, value)
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{function}: {name} is a masked array, whose mask would be lost: pass the .filled() one")
    array = np.asarray(array)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    dtype = WIRE_DTYPES.get(native.dtype) or _new_wire_dtype(native.dtype)
    if dtype is None:
        dtype_text = str(array.dtype if array.dtype.names else array.dtype.name)[:40]
        raise TypeError(f"{function}: {name} has dtype {dtype_text}, not one of {', '.join(DTYPES)}")
    return (dtype, native.shape), native, None


def to_numpy(tensor: tensor_pb2.Tensor) -> npt.NDArray[Any]:
    """A writable array of an answer's tensor.

    Raises:
        InternalError: the answer's dtype, shape and bytes don't agree.
    """
    return of_buffer(tensor.dtype, tuple(tensor.shape), bytearray(tensor.data))


def numpy_rows(spec: Spec, count: int, data: bytes | memoryview) -> list[npt.NDArray[Any]]:
    """Writable arrays of answers that came one after another; raises as `to_numpy`."""
    dtype_code, shape = spec
    if count == 1:
        return [of_buffer(dtype_code, shape, writable(data, dtype_code))]
    is_shared = len(data) <= SHARED_BYTES
    column = of_buffer(dtype_code, (count, *shape), bytearray(data) if is_shared else data)
    rows = list(column) if shape else [column[row, ...] for row in range(count)]  # `list` would make scalars of these
    return rows if is_shared else [row.copy() for row in rows]


def writable(data: bytes | memoryview, dtype_code: int) -> bytearray | memoryview:
    """The data themselves if they may be written to, as in shared memory, and lie as the dtype wants; else a copy."""
    if isinstance(data, memoryview) and not data.readonly and _address(data) % ITEMSIZES.get(dtype_code, 1) == 0:
        return data
    if len(data) < _HUGE_BYTES:
        return bytearray(data)
    copy = np.empty(len(data), np.uint8)  # numpy asks for huge pages: a bytearray's cost as much as the copy does
    copy[:] = np.frombuffer(data, np.uint8)
    return copy.data


def aligned_end(nbytes: int) -> memoryview:
    """Writable memory that ends where a cache line does: an answer mostly ends with an array, which then lies well."""
    block = np.empty(nbytes + ALIGNMENT_BYTES, np.uint8)
    start = -(_address(block.data) + nbytes) % ALIGNMENT_BYTES
    return block.data[start : start + nbytes]


def _address(data: memoryview) -> int:
    address: int = np.frombuffer(data, np.uint8).__array_interface__["data"][0] if len(data) else 0
    return address


def of_buffer(dtype_code: int, shape: tuple[int, ...], data: bytes | bytearray | memoryview) -> npt.NDArray[Any]:
    """An array on the data, writable if they are; raises as `to_numpy`."""
    try:
        dtype = _NUMPY_DTYPES.get(dtype_code) or numpy_dtype(dtype_code)
        array: npt.NDArray[Any] = np.ndarray(shape, dtype, data)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise disagreement() from None
    if array.nbytes != len(data) or array.shape != shape:  # numpy takes -1 for "as much as there is"
        raise disagreement()
    return array


def _new_wire_dtype(dtype: npt.DTypeLike) -> int | None:
    code = DTYPES.get(np.dtype(dtype).name)  # ml_dtypes' bfloat16 is known by its name
    if code is not None:
        WIRE_DTYPES[dtype] = code
    return code


def _from_numbers(function: str, name: str, value: Any) -> npt.NDArray[Any]:
    leaf = _first(value)
    if leaf is None or isinstance(leaf, str | bytes | bytearray | dict | set):
        raise _no_tensor(function, name, leaf)
    if isinstance(leaf, np.ndarray) or _is_torch(leaf):
        _check_list(function, name, value)
    try:
        array = np.asarray(value)
    except OverflowError:
        raise _too_wide(function, name) from None
    except ValueError:
        raise invalid(function, name, "is ragged: its lists differ in length") from None
    except (RuntimeError, TypeError):  # tensors among the numbers, which have no array
        raise _no_tensor(function, name, leaf) from None
    if isinstance(leaf, np.ndarray | np.generic) or hasattr(leaf, "__array__"):
        return array
    strange = {"O": next((item for item in array.flat if not isinstance(item, int)), leaf), "U": "", "S": b""}
    if array.dtype.kind in "uO" and isinstance(strange.get(array.dtype.kind, leaf), int):
        raise _too_wide(function, name)
    if array.dtype.kind not in _NUMBERS:
        raise _no_tensor(function, name, strange.get(array.dtype.kind, leaf))
    with np.errstate(over="ignore"):  # 1e300 becomes infinity, as in torch.tensor
        return array.astype(_NUMBERS[array.dtype.kind])


def _first(value: Any) -> Any:
    """What the first of nested lists begins with."""
    while isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray) and len(value):
        value = value[0]
    return value


def _check_list(function: str, name: str, value: Any) -> None:
    """Refuses lists of arrays whose like numpy would join and drop what is more to them than numbers."""
    rest = [value]
    while rest:
        item = rest.pop()
        if _is_torch(item) or isinstance(item, np.ma.MaskedArray):
            way = "torch.stack" if _is_torch(item) else "np.ma.stack, and pass the .filled() one"
            raise TypeError(f"{function}: {name} is a list with a {type(item).__name__} in it: join them by {way}")
        if isinstance(item, Sequence):
            rest += item


def _no_tensor(function: str, name: str, value: Any) -> TypeError:
    return TypeError(f"{function}: {name} must be a tensor or numbers, got {type(value).__name__}")


def _too_wide(function: str, name: str) -> InvalidArgumentError:
    return invalid(function, name, "has an integer of more than 64 bits")


def _is_torch(value: Any) -> bool:
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)  # who has a tensor has imported torch
    return tensor is not None and isinstance(value, tensor)


def _of_torch(function: str, name: str, tensor: Any) -> tuple[Spec, npt.NDArray[Any], Maker]:
    torch = sys.modules["torch"]  # imported by the caller, or there would be no tensor

    dtype = DTYPES.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None or tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        raise TypeError(f"{function}: {name} {_strangeness(tensor)}")
    try:
        here = tensor.detach().cpu().resolve_neg().contiguous()
        data = here.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else here.numpy()
    except (RuntimeError, ValueError):
        if tensor.device.type != "cpu":
            raise  # the device's own trouble
        raise TypeError(
            f"{function}: {name} is a {type(tensor).__name__} without data of its own: fake, masked, or inside a "
            "transform of torch.func"
        ) from None
    return (dtype, tuple(here.shape)), data, _torch_maker(tensor.device)


def _strangeness(tensor: Any) -> str:
    table = {
        "is nested: its rows differ in length": tensor.is_nested,
        "is sparse, or of another layout than torch.strided: pass the .to_dense() one": str(tensor.layout)
        != "torch.strided",
        "is quantized: pass the .dequantize() one": tensor.is_quantized,
        "is on the meta device, which holds no data": tensor.is_meta,
        f"has dtype {tensor.dtype}, not one of {', '.join(DTYPES)}": True,
    }
    return next(what for what, so in table.items() if so)


@lru_cache(maxsize=64)
def _torch_maker(device: Any) -> Maker:
    torch = sys.modules["torch"]

    def rows(spec: Spec, count: int, data: bytes | memoryview) -> list[Any]:
        dtype_code, shape = spec
        try:
            dtype = getattr(torch, DTYPE_NAMES[dtype_code])
        except KeyError:
            raise disagreement() from None
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes * count != len(data) or min(shape, default=0) < 0:
            raise disagreement()
        if not nbytes:
            return [torch.empty(shape, dtype=dtype, device=device) for _ in range(count)]
        # A storage of its own for each, which is what torch saves, resizes and shares of a tensor.
        pieces = (writable(memoryview(data)[at : at + nbytes], dtype_code) for at in range(0, len(data), nbytes))
        return [torch.frombuffer(piece, dtype=dtype).reshape(shape).to(device) for piece in pieces]

    return rows


def disagreement() -> InternalError:
    """The error of an answer that makes no sense."""
    return InternalError("the server's answer holds a tensor whose dtype, shape and bytes don't agree")


def numpy_dtype(dtype: int) -> np.dtype[Any]:
    """The numpy dtype of a wire dtype. bfloat16 needs the package ml_dtypes.

    Raises:
        TypeError: numpy has no such dtype here.
    """
    name = DTYPE_NAMES[dtype]
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes  # type: ignore[import-not-found,unused-ignore]  # optional: numpy alone has no bfloat16
    except ImportError:
        raise TypeError("numpy has no bfloat16: use torch tensors, or install ml_dtypes") from None
    dtype_object: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype_object


def from_numpy(array: npt.NDArray[Any]) -> tensor_pb2.Tensor:
    """The message of an array.

    Raises:
        TypeError: the dtype has no place on the wire.
    """
    dtype = DTYPES.get(array.dtype.name)
    if dtype is None:
        raise TypeError(f"dtype {array.dtype.name} is not supported, only {', '.join(DTYPES)}")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    tensor = bare(TensorSpec(dtype, array.shape))
    tensor.data = little.tobytes()
    return tensor
