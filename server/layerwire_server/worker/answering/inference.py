"""The answer of a call in the words of the Open Inference Protocol.

It knows ModelInferResponse and calls; nothing of frames, links or devices.
"""

from __future__ import annotations

from layerwire.inference_v2.open_inference_pb2 import ModelInferResponse
from layerwire.wire import protobuf
from layerwire.wire.dtypes import INFERENCE_NAMES
from layerwire_server.worker.call import Call, Written

_RAW = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER


def written(call: Call, outputs: list[memoryview], _timing: bytes) -> Written:
    """The message: outputs come raw, also where inputs came typed, as Triton's do. It has no place for the timing."""
    plan, model, wanted = call.plan, call.model, call.wanted
    assert model is not None
    assert wanted is not None
    head = ModelInferResponse(
        model_name=model.name,
        model_version=str(model.version),
        id=wanted.request_id,
        outputs=[
            ModelInferResponse.InferOutputTensor(
                name=plan.output_names[index],
                datatype=INFERENCE_NAMES[plan.outputs[index].dtype],
                shape=plan.outputs[index].shape,
            )
            for index in wanted.outputs
        ],
    )
    parts: list[bytes | memoryview] = [head.SerializeToString()]
    for index in wanted.outputs:
        data = outputs[index]
        parts += (protobuf.prefix(_RAW, len(data)), data)
    return parts, sum(map(len, parts))
