"""A call's bytes: those of the message that protobuf would make."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerwire.calls import Requests
from layerwire.transport.call import Call
from layerwire.transport.options import Options, wire
from layerwire.transport.rpc import message_without_data
from layerwire.v1 import layerwire_pb2 as pb


@given(timeout=st.floats(1e-6, 9e8))
def test_the_server_is_told_at_least_the_timeout(timeout):
    seconds = pb.ActivateRequest.FromString(wire(Options(), timeout)).options.timeout_seconds
    assert timeout * 0.999999 <= seconds <= timeout * 1.11


@pytest.mark.parametrize("timeout", [None, 1e9, 1.7e308, math.inf], ids=str)
def test_the_server_is_not_told_of_forever(timeout):
    assert wire(Options(timeout), timeout) == b""


@pytest.mark.parametrize("timeout", [None, 1e-4, 30.0, 1e9 + 0.001, math.inf], ids=str)
def test_a_call_sent_again_is_as_sound_as_the_first(timeout):
    call = Call(Requests().relu(np.ones(3)), Options(timeout), Nobody())
    for now in (time.monotonic(), time.monotonic() + 20):
        call.renew(now)
        parts = b"".join(call.entry.parts(7, call.data))
        assert len(parts) == call.entry.nbytes
        assert pb.Calls.FromString(parts).calls[0].activate.input.data == np.ones(3).tobytes()


def test_timeouts_that_differ_little_share_a_template():
    assert len({wire(Options(), 1 + step / 10_000) for step in range(10_000)}) <= 11


class Nobody:
    def done(self):
        return True


ARRAYS = st.builds(np.zeros, st.lists(st.integers(0, 3), max_size=4).map(tuple), st.sampled_from(["f4", "f8", "i8"]))


@given(
    x=ARRAYS,
    weight=st.one_of(ARRAYS, st.text(max_size=200)),
    bias=st.one_of(st.none(), ARRAYS),
    number=st.integers(1, 2**64 - 1),
)
def test_a_calls_bytes_are_the_message(x, weight, bias, number):
    request = Requests().linear(x, weight, bias)
    options = Options(2.5, priority=-3, deterministic=True, timing=True)
    call = Call(request, options, Nobody())
    parsed = pb.Calls.FromString(b"".join(call.entry.parts(number, call.data))).calls[0]
    expected = pb.Call(id=number, linear=message_without_data(request, options))
    expected.linear.options.CopyFrom(
        pb.CallOptions(timeout_seconds=2.5, priority=-3, deterministic=True, return_timing=True)
    )
    for name, array in (("input", x), ("weight", weight), ("bias", bias)):
        if isinstance(array, np.ndarray):
            getattr(expected.linear, name).data = array.tobytes()
    assert parsed == expected
    assert call.nbytes == len(b"".join(call.entry.parts(number, call.data)))
