"""The Open Inference Protocol as other servers speak it: answers one by one, strange types, nonsense; and its words."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from layerwire.calls import Requests
from layerwire.errors import NotFoundError, UnavailableError, UnimplementedError
from layerwire.inference_v2 import open_inference_pb2 as oip
from layerwire.transport.settings import make_settings
from layerwire.v1 import program_pb2
from layerwire.wire.dtypes import DTYPES
from layerwire_bench.plan import TargetSpec
from layerwire_bench.servers import inference, info
from layerwire_bench.targets.inference import DATATYPES, InferenceTarget
from layerwire_bench.workload import Entry
from tests.layerwire_bench.targets.calls import ENTRY, Calls, sample
from tests.layerwire_bench.targets.foreign import Foreign
from tests.through_server.inference import programs

X = np.arange(6, dtype=np.float32).reshape(2, 3)
RUN = Requests().run("model", {"x": X})
Output = oip.ModelInferResponse.InferOutputTensor


def target(address):
    return InferenceTarget(make_settings(address, None, None, None), 30.0)


def request(call, entry=ENTRY):
    """What a server gets."""
    return oip.ModelInferRequest.FromString(target("localhost:1").prepare(sample(call), entry).payload)


def read(*outputs, raw=()):
    """What is made of an answer."""
    answer = oip.ModelInferResponse(outputs=outputs, raw_output_contents=raw)
    opened = target("localhost:1")
    return opened.outputs(opened.prepare(sample(RUN), ENTRY), answer.SerializeToString())


def test_a_request_holds_what_was_asked():
    found = request(Requests().run("model", {"x": X, "mask": X > 1}, version=3), Entry("e", "e", 1.0, priority=4))
    assert (found.model_name, found.model_version) == ("model", "3")
    assert found.parameters["priority"].uint64_param == 7
    assert [(one.name, one.datatype, list(one.shape)) for one in found.inputs] == [
        ("x", "FP32", [2, 3]),
        ("mask", "BOOL", [2, 3]),
    ]
    assert list(found.raw_input_contents) == [X.tobytes(), (X > 1).tobytes()]
    plain = request(RUN)
    assert (plain.model_version, dict(plain.parameters)) == ("", {})


REFUSED = {
    "operator": (Requests().relu(X), ENTRY, "relu: .* not operators"),
    "deterministic": (RUN, Entry("e", "e", 1.0, deterministic=True), "can't ask for deterministic"),
    "inline program": (Requests().run(program_pb2.Program(), {"x": X}), ENTRY, "stored programs as they are"),
    "intermediates": (Requests().run("model", {"x": X}, intermediates=["a"]), ENTRY, "stored programs as they are"),
    "stored weights": (Requests().run("model", {"x": "w"}), ENTRY, "x is stored weights"),
}


@pytest.mark.parametrize(("call", "entry", "told"), REFUSED.values(), ids=REFUSED)
def test_what_the_protocol_has_no_words_for_is_refused(call, entry, told):
    with pytest.raises(ValueError, match=told):
        request(call, entry)


def test_every_dtype_of_the_contract_has_a_name():
    assert DTYPES.keys() <= {dtype for dtype, _ in DATATYPES.values()}


TYPED = {name: both for name, both in DATATYPES.items() if both[1]}


@pytest.mark.parametrize(("datatype", "both"), TYPED.items(), ids=TYPED)
def test_contents_may_come_one_by_one(datatype, both):
    dtype, field = both
    x = np.array([[0, 1], [1, 1], [0, 0]], dtype)
    contents = oip.InferTensorContents(**{field: x.reshape(-1).tolist()})
    found = read(Output(name="y", datatype=datatype, shape=x.shape, contents=contents))["y"]
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found, x)


def test_raw_contents_belong_to_outputs_in_their_order():
    y = np.arange(4, dtype=np.int64)
    found = read(
        Output(name="x", datatype="FP32", shape=X.shape),
        Output(name="y", datatype="INT64", shape=y.shape),
        raw=[X.tobytes(), y.tobytes()],
    )
    np.testing.assert_array_equal(found["x"], X)
    np.testing.assert_array_equal(found["y"], y)
    assert read(Output(name="empty", datatype="FP32", shape=[0, 3]), raw=[b""])["empty"].shape == (0, 3)


FP32 = oip.InferTensorContents(fp32_contents=[1, 2, 3])
UNREADABLE = {
    "too few bytes": ([Output(name="y", datatype="FP32", shape=[2, 3])], [b"\0" * 20], "20 bytes don't make FP32"),
    "part of an element": ([Output(name="y", datatype="FP32", shape=[5])], [b"\0" * 21], "21 bytes don't make FP32"),
    "bytes for nothing": ([Output(name="y", datatype="FP32", shape=[0])], [b"\0" * 3], "3 bytes don't make FP32"),
    "too few elements": ([Output(name="y", datatype="FP32", shape=[4], contents=FP32)], [], "3 elements don't make"),
    "negative axes": ([Output(name="y", datatype="FP32", shape=[-1, -3], contents=FP32)], [], "don't make FP32"),
    "wrong field": ([Output(name="y", datatype="INT64", shape=[3], contents=FP32)], [], "0 elements don't make INT64"),
    "fewer raw": ([Output(name="y", datatype="FP32", shape=[0])] * 2, [b""], "2 outputs and raw contents of 1"),
    "texts": ([Output(name="y", datatype="BYTES", shape=[1])], [b"\0"], "BYTES can't be compared"),
    "no datatype": ([Output(name="y", shape=[1])], [b"\0"], "no datatype can't be compared"),
    "typed halves": ([Output(name="y", datatype="FP16", shape=[3], contents=FP32)], [], "0 bytes don't make FP16"),
}


@pytest.mark.parametrize(("outputs", "raw", "told"), UNREADABLE.values(), ids=UNREADABLE)
def test_answers_that_make_no_array_are_told(outputs, raw, told):
    with pytest.raises(ValueError, match=told):
        read(*outputs, raw=raw)


def test_an_answer_that_is_no_message_is_told():
    opened = target("localhost:1")
    with pytest.raises(ValueError, match="ModelInfer is no message of its type"):
        opened.outputs(opened.prepare(sample(RUN), ENTRY), b"\xff\xff")


async def test_a_foreign_server_is_called():
    async def twice(payload, context):
        asked = oip.ModelInferRequest.FromString(payload)
        if asked.model_name != "model":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unknown model {asked.model_name}")
        y = np.frombuffer(asked.raw_input_contents[0], np.float32) * 2
        contents = oip.InferTensorContents(fp32_contents=y)
        output = Output(name="y", datatype="FP32", shape=asked.inputs[0].shape, contents=contents)
        return oip.ModelInferResponse(model_name="model", outputs=[output]).SerializeToString()

    async with Foreign(twice) as server, target(server.address) as opened:
        calls = Calls(opened)
        good, bad = (opened.prepare(sample(Requests().run(name, {"x": X})), ENTRY) for name in ("model", "other"))
        calls.fire(good, 10)
        calls.fire(bad, 2)
        ends = await calls.all()
        assert [ended.status for ended in ends] == ["OK"] * 10 + ["INVALID_ARGUMENT"] * 2
        assert ends[-1].message.endswith("unknown model other")
        np.testing.assert_array_equal(opened.outputs(good, ends[3].answer)["y"], X * 2)


async def test_a_model_tells_what_it_takes_and_gives(served):
    found = await asyncio.to_thread(inference.model, served.address, "pair")
    assert (found.name, found.versions) == ("pair", ("1",))
    assert found.inputs == (("a", "FP32", "float32", (-1, 4)), ("b", "FP32", "float32", (-1, 4)))
    assert [output.name for output in found.outputs] == ["sum", "difference"]
    assert (await asyncio.to_thread(inference.model, served.address, "linear", "2")).inputs[0].shape == (
        -1,
        programs.FEATURES,
    )
    with pytest.raises(NotFoundError, match="absent"):
        await asyncio.to_thread(inference.model, served.address, "absent")


async def test_a_foreign_model_may_take_texts():
    async def tell(payload, context):
        takes = oip.ModelMetadataResponse.TensorMetadata(name="text", datatype="BYTES", shape=[-1, 1])
        return oip.ModelMetadataResponse(name="m", versions=["1"], inputs=[takes]).SerializeToString()

    async with Foreign(tell) as server:
        found = await asyncio.to_thread(inference.model, server.address, "m")
    assert found.inputs == (("text", "BYTES", None, (-1, 1)),)


async def test_a_server_that_does_not_speak_it_says_so():
    async def refuse(payload, context):
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")

    async with Foreign(refuse) as server:
        with pytest.raises(UnimplementedError, match="no such method"):
            await asyncio.to_thread(inference.model, server.address, "m")
        address = server.address
    with pytest.raises(UnavailableError, match="is a server running there"):
        await asyncio.to_thread(inference.model, address, "m")


@pytest.mark.parametrize("how", ["stream", "unary"])
def test_layerwire_tells_what_it_is(how, served):
    found = info.server_info(TargetSpec(how, served.address))
    assert found.target == f"{how}@{served.address}"
    assert found.facts["server"].startswith("layerwire ")
    assert found.facts["workers"].startswith("cpu (")
    assert found.facts["max_message_bytes"] == f"{64 << 20:,}"


def test_others_tell_what_they_are(served):
    found = info.server_info(TargetSpec("oip", served.address)).facts
    assert found["server"].startswith("layerwire ")
    assert "statistics" in found["extensions"]
    assert info.server_info(TargetSpec("local")).facts["torch"].startswith("2.")


async def test_who_does_not_tell_is_no_failure():
    async with Foreign() as server:
        address = server.address
    for how in ("stream", "oip"):
        assert info.server_info(TargetSpec(how, address)).facts == {"server": "doesn't tell what it is: UNAVAILABLE"}
