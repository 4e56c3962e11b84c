"""Large data are views of the message that they came in; all else is what the parser makes of it."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from layerwire.inference_v2.open_inference_pb2 import ModelInferRequest
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import operators_pb2, program_pb2, tensor_pb2
from layerwire.wire import protobuf
from layerwire_server.worker.reading.large_data import LARGE_BYTES, without_large_data


def tensor(content, size=LARGE_BYTES):
    return tensor_pb2.Tensor(dtype=tensor_pb2.DATA_TYPE_UINT8, shape=[size], data=content * size)


POOL = pb.PoolRequest(options=pb.CallOptions(priority=3), input=tensor(b"i"), samples=tensor(b"s", 8))
RUN = pb.RunRequest(name="net", inputs={"x": tensor(b"x"), "y": tensor(b"y"), "z": tensor(b"z", 4)})
MESSAGES = {  # the message, and the tensors' data in it
    "unary": (POOL, lambda m: [m.input.data, m.samples.data]),
    "map": (RUN, lambda m: [m.inputs[name].data for name in "xyz"]),
    "differentiate": (
        pb.DifferentiateRequest(pool=POOL, output_gradients={"output": tensor(b"g")}),
        lambda m: [m.pool.input.data, m.output_gradients["output"].data],
    ),
    "singles and groups": (
        pb.StreamRequest(
            calls=pb.Calls(
                calls=[pb.Call(id=1, pool=POOL), pb.Call(id=2), pb.Call(id=3, run=RUN)],
                groups=[pb.CallGroup(template=b"t", ids=bytes(16), data=[b"a" * LARGE_BYTES, b"b", b""])],
            )
        ),
        lambda m: [
            m.calls.calls[0].pool.input.data,
            *(m.calls.calls[2].run.inputs[name].data for name in "xyz"),
            *m.calls.groups[0].data,
        ],
    ),
    "inference": (
        ModelInferRequest(model_name="net", id="7", raw_input_contents=[b"a" * LARGE_BYTES, b"b"]),
        lambda m: list(m.raw_input_contents),
    ),
}


@pytest.mark.parametrize(("message", "data_of"), MESSAGES.values(), ids=MESSAGES)
def test_large_data_stay_where_they_are(message, data_of):
    payload = message.SerializeToString()
    small, large = without_large_data(payload, message.DESCRIPTOR)
    assert len(small) < 2000
    data = large.restore(data_of(type(message).FromString(small)))
    assert [bytes(value) for value in data] == data_of(message)
    for value in data:
        if len(value) >= LARGE_BYTES:
            assert isinstance(value, memoryview)
            assert value.obj is payload
            assert value.readonly
        else:
            assert isinstance(value, bytes)


def test_a_program_that_comes_along_is_parsed_whole():
    program = program_pb2.Program(constants=[program_pb2.Constant(name="w", tensor=tensor(b"w"))])
    message = pb.RunRequest(definition=program, inputs={"x": tensor(b"x")})
    small, large = without_large_data(message.SerializeToString(), message.DESCRIPTOR)
    parsed = pb.RunRequest.FromString(small)
    assert parsed.definition == program
    assert bytes(large.restore([parsed.inputs["x"].data])[0]) == b"x" * LARGE_BYTES


def test_the_last_of_several_data_counts_as_in_the_parser():
    one, two = (tensor(letter).SerializeToString() for letter in (b"1", b"2"))
    payload = protobuf.field(3, one) + protobuf.field(3, two)
    small, large = without_large_data(payload, pb.PoolRequest.DESCRIPTOR)
    (data,) = large.restore([pb.PoolRequest.FromString(small).input.data])
    assert bytes(data) == pb.PoolRequest.FromString(payload).input.data == b"2" * LARGE_BYTES


@pytest.mark.parametrize("end", [1, 5, LARGE_BYTES // 2, LARGE_BYTES + 5])
def test_what_is_cut_off_is_left_to_the_parser(end):
    payload = POOL.SerializeToString()[:-end]
    small, _ = without_large_data(payload, pb.PoolRequest.DESCRIPTOR)
    with pytest.raises(DecodeError):
        pb.PoolRequest.FromString(small)


def test_messages_of_very_many_fields_are_left_to_the_parser():
    payload = pb.StreamRequest(calls=pb.Calls(calls=[pb.Call(id=7)] * 20_000)).SerializeToString()
    assert without_large_data(payload, pb.StreamRequest.DESCRIPTOR)[0] is payload


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 7, LARGE_BYTES, LARGE_BYTES + 1]),
            st.sampled_from(["pool", "activate", "linear"]),
            st.binary(max_size=30),
        ),
        max_size=5,
    )
)
def test_all_else_is_what_the_parser_makes_of_it(calls):
    message = pb.StreamRequest(calls=pb.Calls())
    for number, (size, family, unknown) in enumerate(calls):
        call = message.calls.calls.add(id=number)
        request = getattr(call, family)
        request.options.priority = number
        request.input.CopyFrom(tensor(b"d", size))
        request.MergeFromString(protobuf.field(99, unknown))  # a field of a later version
        if family == "activate":
            request.operator.CopyFrom(operators_pb2.ActivateOperator(relu=operators_pb2.Relu()))
    small, large = without_large_data(message.SerializeToString(), message.DESCRIPTOR)
    parsed = pb.StreamRequest.FromString(small)
    for call in parsed.calls.calls:
        request = getattr(call, call.WhichOneof("request"))
        (data,) = large.restore([request.input.data])
        request.input.data = bytes(data)
    assert parsed == message
