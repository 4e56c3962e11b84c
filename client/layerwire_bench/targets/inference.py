"""The target that any server of the Open Inference Protocol is: ModelInfer, one RPC a call.

It knows the protocol's messages; nothing of load, and not what answers should be. Its messages can't be loaded beside
tritonclient's, which have the same names, so only who speaks the protocol imports this file.
"""

from __future__ import annotations

from layerwire.inference_v2 import open_inference_pb2 as messages
from layerwire.transport.call import Call
from layerwire.wire.dtypes import DTYPE_NAMES
from layerwire_bench.servers import datatypes
from layerwire_bench.targets import contract
from layerwire_bench.targets.unary import Prepared, UnaryTarget
from layerwire_bench.workload import Arrays, Entry, Sample

_PATH = "/inference.GRPCInferenceService/ModelInfer"
_MIDDLE_PRIORITY = 11  # 1 is highest; 0 would be the server's default, which is not always the middle


class InferenceTarget(UnaryTarget):
    """Programs as models: Layerwire, Triton, MLServer, OVMS. Inputs go raw; outputs may come raw or one by one."""

    def prepare(self, sample: Sample, entry: Entry) -> Prepared:
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
        return Prepared(_PATH, _message(contract.call(sample, entry, None), sample, entry).SerializeToString(), _read)


def _message(call: Call, sample: Sample, entry: Entry) -> messages.ModelInferRequest:
    program = sample.request.operator
    message = messages.ModelInferRequest(model_name=program.name, raw_input_contents=call.data)  # type: ignore[attr-defined]
    if program.HasField("version"):
        message.model_version = str(program.version)  # type: ignore[attr-defined]
    if entry.priority:
        message.parameters["priority"].uint64_param = _MIDDLE_PRIORITY - entry.priority
    for name, content in call.signature.tensors:
        if isinstance(content, str):
            raise ValueError(  # noqa: TRY004  # its type is right, its value isn't
                f"{call.function}: {name} is stored weights, which the Open Inference Protocol can't name"
            )
        message.inputs.add(name=name, datatype=datatypes.OF_DTYPES[DTYPE_NAMES[content[0]]], shape=content[1])
    return message


def _read(payload: bytes) -> Arrays:
    answer = messages.ModelInferResponse.FromString(payload)
    raw = answer.raw_output_contents
    if not answer.outputs:
        raise ValueError("the answer has no outputs")
    if raw and len(raw) != len(answer.outputs):
        raise ValueError(f"the answer has {len(answer.outputs)} outputs and raw contents of {len(raw)}")
    found = {}
    for index, output in enumerate(answer.outputs):
        contents = datatypes.DATATYPES.get(output.datatype, ("", ""))[1]
        content = raw[index] if raw else getattr(output.contents, contents, b"") if contents else b""
        found[output.name] = datatypes.array(output.name, output.datatype, output.shape, content)
    return found
