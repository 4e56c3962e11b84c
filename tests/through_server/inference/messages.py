"""Requests of the protocol, and what their answers hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layerwire.inference_v2 import open_inference_pb2 as oip

NAMES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
Tensor = oip.ModelInferRequest.InferInputTensor
Output = oip.ModelInferRequest.InferRequestedOutputTensor


def parameter(value: bool | str | float) -> oip.InferParameter:
    """A parameter of the type that the value has; numbers are signed."""
    fields = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    return oip.InferParameter(**{fields[type(value)]: value})


def infer(
    model: str, inputs: dict[str, np.ndarray[Any, Any]], outputs: Sequence[str] = (), **fields: Any
) -> oip.ModelInferRequest:
    """A request with raw contents."""
    tensors = [Tensor(name=name, datatype=NAMES[array.dtype.name], shape=array.shape) for name, array in inputs.items()]
    return oip.ModelInferRequest(
        model_name=model,
        inputs=tensors,
        outputs=[Output(name=name) for name in outputs],
        raw_input_contents=[array.tobytes() for array in inputs.values()],
        **fields,
    )


def floats(answer: oip.ModelInferResponse) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of an answer whose outputs are all FP32."""
    arrays = {}
    for output, data in zip(answer.outputs, answer.raw_output_contents, strict=True):
        assert output.datatype == "FP32"
        assert not output.HasField("contents")
        arrays[output.name] = np.frombuffer(data, np.float32).reshape(tuple(output.shape))
    return arrays
