"""torch tensors as bytes: for files, and for constants within a program.

It knows torch's tensors and the wire's dtypes; neither graphs nor files.
"""

from __future__ import annotations

from typing import Any

from layerwire.export.refusal import LoweringError
from layerwire.v1 import tensor_pb2
from layerwire.wire.dtypes import DTYPES, TensorSpec
from layerwire.wire.framing import bare
from layerwire.wire.safetensors import Content


def wire_dtype(dtype: Any) -> int:
    """The wire dtype of a torch dtype.

    Raises:
        LoweringError: it has none.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise LoweringError(f"dtype {name} has no place in a program")
    return DTYPES[name]


def content(tensor: Any) -> Content:
    """What to write of a tensor; a copy is made, for as long as it is written, only of one that is not contiguous."""
    return Content(wire_dtype(tensor.dtype), tuple(tensor.shape), lambda: _bytes(tensor))


def inline(tensor: Any) -> tensor_pb2.Tensor:
    """The message of a small tensor."""
    message = bare(TensorSpec(wire_dtype(tensor.dtype), tuple(tensor.shape)))
    message.data = _bytes(tensor).tobytes()
    return message


def _bytes(tensor: Any) -> memoryview:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())
