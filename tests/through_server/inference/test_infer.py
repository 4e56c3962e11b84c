"""ModelInfer: what comes back, and what is said of wrong requests."""

from __future__ import annotations

import numpy as np
import pytest
from grpc import RpcError, StatusCode

from layerwire.inference_v2 import open_inference_pb2 as oip
from tests.served import PATIENCE_SECONDS
from tests.through_server.inference.conftest import SERVICE
from tests.through_server.inference.messages import NAMES, Output, Tensor, floats, infer, parameter
from tests.through_server.inference.programs import DTYPES, FEATURES, expected

X = np.arange(2 * FEATURES, dtype=np.float32).reshape(2, FEATURES) - 5
A, B = np.arange(8, dtype=np.float32).reshape(2, 4), np.full((2, 4), 3, np.float32)
TYPED = {
    "bool": ("bool_contents", [True, False, True, True]),
    "uint8": ("uint_contents", [0, 1, 254, 255]),
    "int8": ("int_contents", [-128, -1, 0, 127]),
    "int16": ("int_contents", [-(2**15), -1, 0, 2**15 - 1]),
    "int32": ("int_contents", [-(2**31), -1, 0, 2**31 - 1]),
    "int64": ("int64_contents", [-(2**63), -1, 0, 2**63 - 1]),
    "float32": ("fp32_contents", [0.5, -1.25, 3.0, float("inf")]),
    "float64": ("fp64_contents", [0.1, -1e300, 3.0, float("inf")]),
}


def typed(dtype, field, values, shape=(2, 2)):
    contents = oip.InferTensorContents(**{field: values})
    tensor = Tensor(name="x", datatype=NAMES[dtype], shape=shape, contents=contents)
    return oip.ModelInferRequest(model_name=f"identity-{dtype}", inputs=[tensor])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_datatype_travels_raw(ask, dtype):
    itemsize = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
    data = bytes(index % 2 if dtype == "bool" else (index * 37) % 120 for index in range(6 * itemsize))
    tensor = Tensor(name="x", datatype=NAMES[dtype], shape=[3, 2])
    request = oip.ModelInferRequest(model_name=f"identity-{dtype}", inputs=[tensor], raw_input_contents=[data])
    answer = ask("ModelInfer", request)
    (output,) = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", NAMES[dtype], [3, 2])
    assert list(answer.raw_output_contents) == [data]


@pytest.mark.parametrize("dtype", TYPED)
def test_typed_contents_come_back_raw(ask, dtype):
    field, values = TYPED[dtype]
    answer = ask("ModelInfer", typed(dtype, field, values))
    (data,) = answer.raw_output_contents
    assert np.frombuffer(data, dtype).tolist() == values
    assert not answer.outputs[0].HasField("contents")


def test_no_rows_are_no_elements(ask):
    answer = ask("ModelInfer", typed("float32", "fp32_contents", [], (0, 2)))
    assert (list(answer.outputs[0].shape), list(answer.raw_output_contents)) == ([0, 2], [b""])


def test_a_model_answers_with_its_name_version_and_the_id(ask):
    answer = ask("ModelInfer", infer("linear", {"x": X}, id="some id"))
    assert (answer.model_name, answer.model_version, answer.id) == ("linear", "1", "some id")
    assert not answer.parameters
    np.testing.assert_allclose(floats(answer)["y"], expected(X), rtol=1e-6)


@pytest.mark.parametrize(("version", "scale"), [("", 1), ("1", 1), ("2", 2)])
def test_versions(ask, version, scale):
    answer = ask("ModelInfer", infer("linear", {"x": X}, model_version=version))
    assert answer.model_version == (version or "1")
    np.testing.assert_allclose(floats(answer)["y"], expected(X, scale), rtol=1e-6)


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        ([], ["sum", "difference"]),
        (["difference"], ["difference"]),
        (["difference", "sum"], ["difference", "sum"]),
        (["sum", "sum"], ["sum"]),
        (["plus", "difference"], ["plus", "difference"]),
    ],
    ids=["all", "one", "another order", "twice", "one inside"],
)
def test_outputs_are_those_that_were_asked_for(ask, outputs, names):
    arrays = floats(ask("ModelInfer", infer("pair", {"b": B, "a": A}, outputs)))
    values = {"sum": A + B, "plus": A + B, "difference": A - B}
    assert list(arrays) == names
    for name, array in arrays.items():
        assert array.tolist() == values[name].tolist()


def test_unknown_parameters_are_ignored(ask):
    parameters = {"headers": parameter("x"), "sequence_id": parameter(3), "priority": parameter(1)}
    assert ask("ModelInfer", infer("linear", {"x": X}, parameters=parameters)).outputs


def raw(data=(b"\0" * 48,), *, datatype="FP32", shape=(2, FEATURES), name="x", **fields):
    tensor = Tensor(name=name, datatype=datatype, shape=shape)
    return oip.ModelInferRequest(model_name="linear", inputs=[tensor], raw_input_contents=data, **fields)


def mixed():
    request = raw()
    request.inputs[0].contents.fp32_contents.extend([0.0] * 12)
    return request


BAD = {
    "a byte short": (raw((b"\0" * 47,)), "x must have 48 bytes"),
    "a byte long": (raw((b"\0" * 49,)), "x must have 48 bytes"),
    "no bytes": (raw((b"",)), "x must have 48 bytes"),
    "no contents": (raw(()), "x must have 12 elements for shape [2, 6], got 0"),
    "too many contents": (raw((b"\0" * 48, b"")), "raw_input_contents must have an entry for each of 1 inputs, got 2"),
    "mixed contents": (mixed(), "x must not have contents"),
    "another name": (raw(name="z"), "inputs must be among x, got 'z'"),
    "no input": (oip.ModelInferRequest(model_name="linear"), "x is required"),
    "one input of two": (infer("pair", {"a": A}), "b is required"),
    "an input twice": (
        oip.ModelInferRequest(model_name="linear", inputs=[Tensor(name="x")] * 2),
        "inputs must have each name once",
    ),
    "another datatype": (raw((b"\0" * 96,), datatype="FP64"), "x must have dtype float32, got float64"),
    "BYTES": (raw(datatype="BYTES"), "x must have a datatype among BOOL"),
    "UINT16": (raw(datatype="UINT16"), "x must have a datatype among BOOL"),
    "no datatype": (raw(datatype=""), "x must have a datatype among BOOL"),
    "another shape": (raw(shape=(6, 2)), "x must have shape [-1, 6], got [6, 2]"),
    "another rank": (raw(shape=(12,)), "x must have shape [-1, 6], got [12]"),
    "a negative size": (raw(shape=(-2, 6)), "x must have sizes of at least 0"),
    "a huge shape": (raw(shape=(2**62, 6)), "x must have fewer elements"),
    "a shape that overflows": (raw(shape=(2**32, 2**32)), "x must have fewer elements"),
    "many axes": (raw(shape=(1,) * 33), "x must have at most 8 axes"),
    "rows that differ": (infer("pair", {"a": A, "b": B[:1]}), "b must have the size along axis 0"),
    "an unknown output": (raw(outputs=[Output(name="z")]), "outputs must be among y, or a value inside"),
    "another contents' field": (typed("float32", "int_contents", [1, 2, 3, 4]), "must have fp32_contents for FP32"),
    "too few elements": (typed("float32", "fp32_contents", [1.0]), "x must have 4 elements"),
    "typed FP16": (typed("float16", "fp32_contents", [1.0] * 4), "must come raw, as its datatype is FP16"),
    "typed BF16": (typed("bfloat16", "fp32_contents", [1.0] * 4), "must come raw, as its datatype is BF16"),
    "too large for INT8": (typed("int8", "int_contents", [128, 0, 0, 0]), "elements of -128 to 127"),
    "too large for UINT8": (typed("uint8", "uint_contents", [256, 0, 0, 0]), "elements of 0 to 255"),
    "a bool of 2": (
        oip.ModelInferRequest(
            model_name="identity-bool",
            inputs=[Tensor(name="x", datatype="BOOL", shape=[1, 2])],
            raw_input_contents=[b"\0\2"],
        ),
        "must have bytes of 0 and 1",
    ),
    "a version that is none": (raw(model_version="latest"), "model_version must be a number above 0"),
    "version 0": (raw(model_version="0"), "model_version must be a number above 0"),
    "a huge version": (raw(model_version="9" * 30), "model_version must be a number above 0"),
    "a priority that is text": (raw(parameters={"priority": parameter("1")}), "priority must be an int64_param"),
    "a negative timeout": (raw(parameters={"timeout": parameter(-1)}), "timeout must be an int64_param"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(ask, name):
    request, words = BAD[name]
    with pytest.raises(RpcError) as caught:
        ask("ModelInfer", request)
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


@pytest.mark.parametrize("fields", [{"model_name": "nothing"}, {"model_name": "linear", "model_version": "9"}])
def test_unknown_models_and_versions(ask, fields):
    with pytest.raises(RpcError) as caught:
        ask("ModelInfer", oip.ModelInferRequest(**fields))
    assert caught.value.code() is StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("side", "name"),
    [("inputs", "shared_memory_region"), ("outputs", "shared_memory_region"), ("outputs", "classification")],
)
def test_what_is_not_served_is_not_passed_over(ask, side, name):
    request = infer("linear", {"x": X}, ["y"])
    getattr(request, side)[0].parameters[name].string_param = "mine"
    with pytest.raises(RpcError) as caught:
        ask("ModelInfer", request)
    assert caught.value.code() is StatusCode.UNIMPLEMENTED
    assert name in caught.value.details()


@pytest.mark.parametrize("payload", [b"\xff" * 9, b"\x0a\x02\xff\xff"], ids=["no protobuf", "no utf-8"])
def test_what_is_no_request(channel, payload):
    with pytest.raises(RpcError) as caught:
        channel.unary_unary(SERVICE + "ModelInfer")(payload, timeout=PATIENCE_SECONDS)
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT


def test_a_message_that_would_grow_by_parsing_is_refused_before(ask):
    """Six million integers of a byte each are 50 MB when parsed."""
    tensor = Tensor(name="x", datatype="INT64", shape=[6_000_000])
    tensor.contents.int64_contents.extend([1] * 6_000_000)
    with pytest.raises(RpcError) as caught:
        ask("ModelInfer", oip.ModelInferRequest(model_name="linear", inputs=[tensor]))
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    assert "bytes beside its tensors' data" in caught.value.details()


def test_a_large_message_of_floats_is_data(ask):
    rows = 250_000
    answer = ask("ModelInfer", typed("float64", "fp64_contents", [0.5] * 2 * rows, (rows, 2)))
    assert len(answer.raw_output_contents[0]) == 16 * rows


def test_mutilated_messages_are_wrong_or_right_but_nothing_else(channel):
    """Bytes changed, taken out and doubled at random: a worker says what is wrong, or runs what is still right."""
    random = np.random.default_rng(7)
    typed_one = typed("int8", *TYPED["int8"])
    seeds = [request.SerializeToString() for request in (raw(), mixed(), typed_one, infer("pair", {"a": A, "b": B}))]
    method = channel.unary_unary(SERVICE + "ModelInfer", response_deserializer=oip.ModelInferResponse.FromString)
    codes = set()
    for turn in range(1500):
        payload = bytearray(seeds[turn % len(seeds)])
        for _ in range(random.integers(1, 4)):
            start = int(random.integers(0, len(payload)))
            end = start + int(random.integers(0, 9))
            replacement = random.choice([b"", bytes(payload[start:end]) * 2, random.bytes(end - start)])
            payload[start:end] = replacement
        try:
            method(bytes(payload), timeout=PATIENCE_SECONDS)
        except RpcError as error:
            codes.add(error.code())
    assert codes == {StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND}
