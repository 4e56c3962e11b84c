"""The target that any server of the Open Inference Protocol is: ModelInfer, one RPC a call.

It knows the protocol's messages; nothing of load, and not what answers should be. Its messages can't be loaded beside
tritonclient's, which have the same names, so only who speaks the protocol imports this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from layerwire.inference_v2 import open_inference_pb2 as messages
from layerwire.transport.call import Call
from layerwire.wire.arrays import numpy_dtype
from layerwire.wire.dtypes import DTYPES, INFERENCE_NAMES, OF_INFERENCE
from layerwire_bench.targets import contract
from layerwire_bench.targets.unary import UnaryCall, UnaryTarget
from layerwire_bench.workload import Arrays, Entry, Sample

_PATH = "/inference.GRPCInferenceService/ModelInfer"
# Element types by the protocol's names: torch's and numpy's name, and the field of InferTensorContents that holds
# elements one by one, "" where they come raw only. The last three only other servers have.
DATATYPES = {name: (row.name, row.contents) for name, row in OF_INFERENCE.items()} | {
    "UINT16": ("uint16", "uint_contents"),
    "UINT32": ("uint32", "uint_contents"),
    "UINT64": ("uint64", "uint64_contents"),
}
_MIDDLE_PRIORITY = 11  # 1 is highest; 0 would be the server's default, which is not always the middle


class InferenceTarget(UnaryTarget):
    """Programs as models: Layerwire, Triton, MLServer, OVMS. Inputs go raw; outputs may come raw or one by one."""

    def prepare(self, sample: Sample, entry: Entry) -> UnaryCall:
        """The request's bytes.

        Raises:
            ValueError: it is no call of a stored program, or asks for what the protocol has no words for.
        """
        request = sample.request
        if request.family != "run":
            raise ValueError(
                f"{request.function}: the Open Inference Protocol runs models, which are stored programs, not operators"
            )
        program = request.operator
        if entry.deterministic:
            raise ValueError(f"{request.function}: the Open Inference Protocol can't ask for deterministic answers")
        if not program.name or program.intermediates:  # type: ignore[attr-defined]
            raise ValueError(f"{request.function}: the Open Inference Protocol runs stored programs as they are")
        return UnaryCall(_PATH, _message(contract.call(sample, entry, None), sample, entry).SerializeToString(), _read)


def _message(call: Call, sample: Sample, entry: Entry) -> messages.ModelInferRequest:
    program = sample.request.operator
    message = messages.ModelInferRequest(model_name=program.name, raw_input_contents=list(map(bytes, call.data)))  # type: ignore[attr-defined]
    if program.HasField("version"):
        message.model_version = str(program.version)  # type: ignore[attr-defined]
    if entry.priority:
        message.parameters["priority"].uint64_param = _MIDDLE_PRIORITY - entry.priority
    for name, content in call.template.signature.tensors:
        if isinstance(content, str):
            raise ValueError(  # noqa: TRY004  # its type is right, its value isn't
                f"{call.function}: {name} is stored weights, which the Open Inference Protocol can't name"
            )
        message.inputs.add(name=name, datatype=INFERENCE_NAMES[content[0]], shape=content[1])
    return message


def _read(payload: bytes) -> Arrays:
    answer = messages.ModelInferResponse.FromString(payload)
    raw = answer.raw_output_contents
    if not answer.outputs:
        raise ValueError("the answer has no outputs")
    if raw and len(raw) != len(answer.outputs):
        raise ValueError(f"the answer has {len(answer.outputs)} outputs and raw contents of {len(raw)}")
    outputs = {}
    for index, output in enumerate(answer.outputs):
        field = DATATYPES.get(output.datatype, ("", ""))[1]
        content = raw[index] if raw else getattr(output.contents, field, b"") if field else b""
        outputs[output.name] = _array(output.name, output.datatype, output.shape, content)
    return outputs


def _array(name: str, datatype: str, shape: Sequence[int], content: bytes | Sequence[Any]) -> npt.NDArray[Any]:
    """An array of a tensor's raw bytes, or of its elements one by one.

    Raises:
        ValueError: they don't fit the shape, or the element type has no place in an array.
    """
    if datatype not in DATATYPES:
        raise ValueError(f"{name}: elements of {datatype or 'no datatype'} can't be compared")
    dtype = _numpy_dtype(name, DATATYPES[datatype][0])
    flat: npt.NDArray[Any]
    if isinstance(content, bytes):
        flat = np.frombuffer(content, dtype) if len(content) % dtype.itemsize == 0 else np.empty(0, dtype)
    else:
        flat = np.array(content, dtype)
    if flat.size != math.prod(shape) or min(shape, default=0) < 0 or (content and not flat.size):
        unit = "bytes" if isinstance(content, bytes) else "elements"
        raise ValueError(f"{name}: {len(content)} {unit} don't make {datatype} {list(shape)}")
    return flat.reshape(tuple(shape))


def _numpy_dtype(name: str, dtype: str) -> np.dtype[Any]:
    """The element type of numpy, little-endian; the contract has not all that the protocol has."""
    try:
        return (numpy_dtype(DTYPES[dtype]) if dtype in DTYPES else np.dtype(dtype)).newbyteorder("<")
    except TypeError:
        raise ValueError(f"{name}: bfloat16 can't be read without the package ml_dtypes") from None
