"""A call has one fingerprint, however it comes, and another call another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import tensor_pb2
from layerwire.wire.protobuf import MalformedError
from layerwire_server.gateway import fingerprint
from layerwire_server.gateway.spans import Envelope

NUMBERS = {field.name: field.number for field in pb.Call.DESCRIPTOR.oneofs_by_name["request"].fields}
TENSORS = st.one_of(
    st.builds(tensor_pb2.Tensor, shape=st.lists(st.integers(0, 300), max_size=4), data=st.binary(max_size=300)),
    st.builds(tensor_pb2.Tensor, shape=st.lists(st.integers(0, 300), max_size=4)),
    st.builds(tensor_pb2.Tensor, name=st.text(max_size=5)),
)
OPTIONS = st.builds(pb.CallOptions, priority=st.integers(-10, 10), return_timing=st.booleans())
LINEAR = st.builds(pb.LinearRequest, input=TENSORS, weight=TENSORS, bias=TENSORS, options=OPTIONS)
RUN = st.builds(
    pb.RunRequest, name=st.text(max_size=5), inputs=st.dictionaries(st.text(max_size=3), TENSORS, max_size=4)
)
DIFFERENTIATE = st.builds(
    pb.DifferentiateRequest,
    linear=LINEAR,
    output_gradients=st.dictionaries(st.text(max_size=3), TENSORS, max_size=3),
    wanted=st.lists(st.text(max_size=3), max_size=3),
)
REQUESTS = LINEAR | RUN | DIFFERENTIATE


def _name(request):
    return type(request).__name__.removesuffix("Request").lower()


def _tensors(request):
    """The tensors without a name, in the order in which a group has their data."""
    if isinstance(request, pb.DifferentiateRequest):
        gradients = request.output_gradients
        tensors = [*_tensors(request.linear), *(gradients[key] for key in sorted(gradients, key=str.encode))]
    elif isinstance(request, pb.RunRequest):
        tensors = [request.inputs[key] for key in sorted(request.inputs, key=str.encode)]
    else:
        tensors = [getattr(request, name) for name in ("input", "weight", "bias") if request.HasField(name)]
    return [tensor for tensor in tensors if not tensor.HasField("name")]


def _fingerprint(payload, number):
    template, data = fingerprint.request(payload, Envelope(0, number, (0, len(payload))))
    pieces = [payload[start:end] for start, end in data]
    return fingerprint.digest(number, template, pieces), template, pieces


@given(REQUESTS, OPTIONS)
def test_a_call_is_the_same_with_its_data_in_it_and_beside_it(request, options):
    number = NUMBERS[_name(request)]
    alone, template, pieces = _fingerprint(request.SerializeToString(), number)
    assert pieces == [tensor.data for tensor in _tensors(request)]
    for tensor in _tensors(request):
        tensor.ClearField("data")
    inner = request.linear if isinstance(request, pb.DifferentiateRequest) else request
    inner.options.CopyFrom(options)
    _, of_template, _ = _fingerprint(request.SerializeToString(), number)
    assert of_template == template
    assert fingerprint.digest(number, of_template, pieces) == alone


@given(REQUESTS, REQUESTS)
def test_other_calls_have_other_fingerprints(one, other):
    for request in (one, other):
        inner = request.linear if isinstance(request, pb.DifferentiateRequest) else request
        inner.ClearField("options")
        for tensor in _tensors(request):
            tensor.data = tensor.data  # nothing and no bytes are the same
    fingerprints = [_fingerprint(request.SerializeToString(), NUMBERS[_name(request)])[0] for request in (one, other)]
    assert (fingerprints[0] == fingerprints[1]) == (one == other)


@given(RUN)
def test_the_order_of_fields_does_not_matter(request):
    parts = [pb.RunRequest(name=request.name)]
    parts += [pb.RunRequest(inputs={key: tensor}) for key, tensor in request.inputs.items()]
    spellings = [b"".join(part.SerializeToString() for part in order) for order in (parts, parts[::-1])]
    assert len({_fingerprint(payload, NUMBERS["run"])[0] for payload in spellings}) == 1


@given(st.binary(max_size=80), st.sampled_from(sorted(NUMBERS.values())))
def test_garbage_is_unclear_or_has_a_fingerprint(garbage, number):
    try:
        _fingerprint(garbage, number)
    except MalformedError:
        return


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_every_tensor_of_a_request_is_found(name):
    message = pb.Call.DESCRIPTOR.fields_by_name[name].message_type._concrete_class
    request = message()
    direct = [field.name for field in message.DESCRIPTOR.fields if field.message_type is tensor_pb2.Tensor.DESCRIPTOR]
    for number, field in enumerate(direct):
        getattr(request, field).data = b"%d" % number
    _, template, pieces = _fingerprint(request.SerializeToString(), NUMBERS[name])
    assert pieces == [b"%d" % number for number in range(len(direct))]
    assert all(getattr(message.FromString(template), field).data == b"" for field in direct)
