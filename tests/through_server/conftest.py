"""Clients of the server that all tests share: the SDK, and stubs as another client would generate them."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

import layerwire
from layerwire.v1 import layerwire_pb2 as pb
from layerwire.v1 import layerwire_pb2_grpc
from tests.served import PATIENCE_SECONDS, Server


@pytest.fixture(scope="session")
def client(served: Server) -> Iterator[layerwire.Client]:
    with layerwire.Client(served.address, timeout=PATIENCE_SECONDS) as lw:
        yield lw


@pytest.fixture(scope="session")
def stub(served: Server) -> Iterator[layerwire_pb2_grpc.LayerwireServiceStub]:
    """What another client would generate from the contract."""
    options = [("grpc.max_receive_message_length", 1 << 26), ("grpc.max_send_message_length", 1 << 26)]
    with grpc.insecure_channel(served.address, options) as channel:
        yield layerwire_pb2_grpc.LayerwireServiceStub(channel)  # type: ignore[no-untyped-call]


METHODS = {name: name.capitalize() for name in ("pool", "unpool", "linear", "activate", "convolve", "normalize")}


def unary(stub: layerwire_pb2_grpc.LayerwireServiceStub, call: pb.Call) -> grpc.Future:
    """A stream's call sent by its unary RPC."""
    family = call.WhichOneof("request")
    assert family is not None
    future: grpc.Future = getattr(stub, METHODS[family]).future(getattr(call, family), timeout=PATIENCE_SECONDS)
    return future
