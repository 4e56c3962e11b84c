"""The bound on what parsing a message can cost: who is let through and who isn't; broken messages are the parser's."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from layerwire.v1 import layerwire_pb2 as pb
from layerwire.wire.protobuf import prefix
from layerwire_server.errors import OverLimitError
from layerwire_server.link import MAX_CALLS
from layerwire_server.worker.reading import parse_limits
from layerwire_server.worker.reading.parse_limits import CALL_BYTES, MESSAGE_BYTES

LARGE = bytes(2 * MESSAGE_BYTES)


def field(number: int, body: bytes) -> bytes:
    return prefix(number, len(body)) + body


def check(message: Message) -> None:
    parse_limits.check(message.DESCRIPTOR, message.SerializeToString())


def reason_of(request: type[Message], payload: bytes) -> str:
    with pytest.raises(OverLimitError) as caught:
        parse_limits.check(request.DESCRIPTOR, payload)
    return caught.value.reason


def relu(data: bytes, call_id: int = 1) -> pb.Call:
    call = pb.Call(id=call_id)
    call.activate.operator.relu.SetInParent()
    call.activate.input.dtype = 1
    call.activate.input.shape.extend([len(data) // 4])
    call.activate.input.data = data
    return call


HONEST = {
    "a large tensor": pb.ActivateRequest(input=relu(LARGE).activate.input),
    "several large tensors": pb.NormalizeRequest(
        input={"data": LARGE}, weight={"data": LARGE}, bias={"data": LARGE}, running_mean={"data": LARGE}
    ),
    "weights": pb.PutWeightsRequest(name="w", tensor={"data": LARGE}),
    "as many small calls as may be": pb.StreamRequest(
        calls=pb.Calls(calls=[relu(bytes(40), number) for number in range(MAX_CALLS)])
    ),
    "as many calls with long names as may be": pb.StreamRequest(
        calls=pb.Calls(
            calls=[
                pb.Call(
                    id=number,
                    normalize=pb.NormalizeRequest(
                        input={"data": bytes(1200)}, weight={"name": "w" * 200}, bias={"name": "b" * 200},
                        running_mean={"name": "m" * 200}, running_var={"name": "v" * 200},
                    ),
                )
                for number in range(MAX_CALLS)
            ]
        )
    ),
    "a large group": pb.StreamRequest(
        calls=pb.Calls(groups=[pb.CallGroup(template=bytes(CALL_BYTES), ids=bytes(8 * MAX_CALLS), data=[LARGE, LARGE])])
    ),
    "as many groups as may be": pb.StreamRequest(
        calls=pb.Calls(groups=[pb.CallGroup(template=bytes(900), ids=bytes(8), data=[bytes(900)])] * MAX_CALLS)
    ),
    "weights that come with a group's program": pb.StreamRequest(
        calls=pb.Calls(
            groups=[
                pb.CallGroup(
                    template=pb.Call(
                        run=pb.RunRequest(definition={"constants": [{"name": "w", "tensor": {"data": LARGE}}]})
                    ).SerializeToString(),
                    ids=bytes(8),
                )
            ]
        )
    ),
    "a call of an unknown operator": pb.StreamRequest(calls=pb.Calls(calls=[pb.Call(id=1), relu(LARGE)])),
}  # fmt: skip


@pytest.mark.parametrize("message", HONEST.values(), ids=HONEST)
def test_what_honest_clients_send_is_let_through(message: Message) -> None:
    check(message)


def test_a_small_message_may_be_anything() -> None:
    parse_limits.check(pb.PoolRequest.DESCRIPTOR, field(3, b"\x08\x01" * 200_000))
    parse_limits.check(pb.StreamRequest.DESCRIPTOR, b"\xff" * MESSAGE_BYTES)


EMPTY_CALL = b"\x0a\x00"
ROOMY_CALL = field(1, field(2, field(3, field(3, bytes(CALL_BYTES)))))  # looked into, for it is above CALL_BYTES
EXCESS = {
    "packed numbers": (pb.PoolRequest, field(2, field(1, field(2, b"\x01" * 2 * MESSAGE_BYTES))), "parameter_bytes"),
    "an unknown field": (pb.PoolRequest, field(999, LARGE), "parameter_bytes"),
    "groups": (pb.PoolRequest, b"\x7b" * 2 * MESSAGE_BYTES, "parameter_bytes"),
    "numbers in a tensor": (pb.ActivateRequest, field(3, b"\x08\x01" * MESSAGE_BYTES), "parameter_bytes"),
    "empty data, again and again": (pb.ActivateRequest, field(3, b"\x1a\x00" * MESSAGE_BYTES), "parameter_bytes"),
    "fixed-size numbers": (pb.ActivateRequest, b"\x7d1234" * MESSAGE_BYTES, "parameter_bytes"),
    "a tensor where none belongs": (pb.LinearRequest, field(9, field(3, LARGE)), "parameter_bytes"),
    "a name": (pb.PutWeightsRequest, field(1, LARGE), "parameter_bytes"),
    "ids": (pb.StreamRequest, field(2, field(1, LARGE)), "parameter_bytes"),
    "calls": (pb.StreamRequest, field(1, EMPTY_CALL * (MAX_CALLS + 1) + ROOMY_CALL * 600), "message_calls"),
    "calls in several parts": (
        pb.StreamRequest, field(1, EMPTY_CALL * MAX_CALLS) + field(1, EMPTY_CALL) + field(2, LARGE), "message_calls",
    ),
    "a template": (pb.StreamRequest, field(1, field(2, field(1, LARGE))), "parameter_bytes"),
    "numbers in a template": (
        pb.StreamRequest, field(1, field(2, field(1, field(2, field(3, b"\x08\x01" * CALL_BYTES * 512))))),
        "parameter_bytes",
    ),
    "calls of a group": (pb.StreamRequest, field(1, field(2, field(2, LARGE))), "message_calls"),
    "calls of many groups": (
        pb.StreamRequest, field(1, field(2, field(2, bytes(80)) + field(3, bytes(1200))) * 420), "message_calls",
    ),
    "groups without calls": (pb.StreamRequest, field(1, b"\x12\x00" * MESSAGE_BYTES), "parameter_bytes"),
    "empty pieces of data": (pb.StreamRequest, field(1, field(2, b"\x1a\x00" * MESSAGE_BYTES)), "parameter_bytes"),
    "numbers in calls": (
        pb.StreamRequest, field(1, field(1, field(2, field(3, b"\x08\x01" * CALL_BYTES))) * 1000), "parameter_bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_type", "payload", "reason"), EXCESS.values(), ids=EXCESS)
def test_what_would_grow_is_refused(request_type: type[Message], payload: bytes, reason: str) -> None:
    assert reason_of(request_type, payload) == reason


def test_the_refusal_names_method_and_limit() -> None:
    with pytest.raises(OverLimitError, match=r"^pool: request must have at most 524288 bytes beside") as caught:
        parse_limits.check(pb.PoolRequest.DESCRIPTOR, field(999, LARGE))
    assert (caught.value.operator, caught.value.field) == ("pool", "request")


def overhead(message: pb.ActivateRequest) -> int:
    return message.ByteSize() - len(message.input.data) - len(message.weight.data)


@given(st.integers(-20, 20), st.integers(0, 300_000), st.booleans())
def test_the_bound_is_exact(excess: int, data: int, second: bool) -> None:
    message = pb.ActivateRequest(input={"data": bytes(data), "name": ""}, weight={"data": b""})
    message.input.data = bytes(data + MESSAGE_BYTES)
    if second:
        message.weight.data = bytes(data)
    room = MESSAGE_BYTES - overhead(message)
    unknown = room + excess
    tail = field(1000, bytes(unknown - 5))  # 2 bytes of tag, 3 of length
    payload = message.SerializeToString() + tail
    if excess <= 0:
        parse_limits.check(pb.ActivateRequest.DESCRIPTOR, payload)
    else:
        assert reason_of(pb.ActivateRequest, payload) == "parameter_bytes"


BROKEN = {
    "cut": field(3, field(3, LARGE))[:-1],
    "a field that leaves its message": field(3, prefix(3, 2 * len(LARGE)) + LARGE),
    "a tag without an end": field(3, field(3, LARGE)) + b"\xff",
    "a length without an end": field(3, field(3, LARGE)) + b"\x1a\xff\xff",
    "a number without an end": field(3, field(3, LARGE)) + b"\x08" + b"\xff" * 20,
}


@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
def test_a_broken_message_is_left_to_the_parser_which_refuses_it(payload: bytes) -> None:
    parse_limits.check(pb.ActivateRequest.DESCRIPTOR, payload)
    with pytest.raises(DecodeError):
        pb.ActivateRequest.FromString(payload)


@given(st.binary(max_size=200), st.integers(0, 3))
def test_garbage_is_never_more_than_refused(tail: bytes, times: int) -> None:
    payload = field(3, field(3, LARGE)) + tail * times
    parse_limits.check(pb.ActivateRequest.DESCRIPTOR, memoryview(payload))
