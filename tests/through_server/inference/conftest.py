"""Callers of the server that all tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import layerwire
from layerwire.inference_v2 import open_inference_pb2 as oip
from tests.served import PATIENCE_SECONDS, Server

SERVICE = "/inference.GRPCInferenceService/"


@pytest.fixture(scope="session")
def channel(served: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address) as channel:
        yield channel


@pytest.fixture(scope="session")
def client(served: Server) -> Iterator[layerwire.Client]:
    with layerwire.Client(served.address, timeout=PATIENCE_SECONDS) as lw:
        yield lw


@pytest.fixture(scope="session")
def ask(channel: grpc.Channel) -> Callable[..., Any]:
    """Calls a unary method: `ask("ModelReady", name="linear")`."""

    def call(method: str, message: Any = None, *, timeout: float = PATIENCE_SECONDS, **fields: Any) -> Any:
        message = getattr(oip, f"{method}Request")(**fields) if message is None else message
        response = getattr(oip, f"{method}Response")
        return channel.unary_unary(SERVICE + method, type(message).SerializeToString, response.FromString)(
            message, timeout=timeout
        )

    return call
