"""Samples as calls of the SDK, and what answers of the contract hold.

It knows the contract's messages and arrays; neither channels nor loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerwire.calls import Request
from layerwire.errors import LayerwireError
from layerwire.transport.call import MAPS, NOBODY, Call
from layerwire.transport.options import Options
from layerwire.wire import arrays
from layerwire.wire.dtypes import DTYPE_NAMES
from layerwire_bench.workload import Arrays, Entry, Sample


def call(sample: Sample, entry: Entry, timeout_seconds: float | None) -> Call:
    """The sample's call, spelled out; raises ValueError if it can't be one."""
    options = Options(timeout=timeout_seconds, priority=entry.priority, deterministic=entry.deterministic)
    try:
        return Call(sample.request._replace(timeout_seconds=timeout_seconds), options, NOBODY)
    except TypeError as error:
        raise ValueError(str(error)) from None


def outputs(request: Request, response: Any) -> Arrays:
    """The tensors of a family's response, by output name; raises ValueError if one can't be an array."""
    if request.family in MAPS:
        tensors: Mapping[str, Any] = getattr(response, MAPS[request.family])
        named = {name: tensors[name] for name in request.outputs or tensors if name in tensors}
    else:
        named = {name: getattr(response, name) for name in request.outputs if response.HasField(name)}
    return {name: array(name, tensor.dtype, tuple(tensor.shape), tensor.data) for name, tensor in named.items()}


def array(name: str, dtype: int, shape: tuple[int, ...], data: bytes | memoryview) -> Any:
    """One tensor of an answer; raises ValueError if it can't be an array."""
    try:
        if dtype in DTYPE_NAMES:
            arrays.numpy_dtype(dtype)
        return arrays.of_buffer(dtype, shape, bytearray(data))
    except TypeError:
        raise ValueError(f"{name}: answers of bfloat16 can't be read without the package ml_dtypes") from None
    except LayerwireError as error:
        raise ValueError(f"{name}: {error.message}") from None
