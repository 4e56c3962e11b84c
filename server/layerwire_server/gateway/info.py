"""What GetServerInfo tells, put together from the settings and what the workers told of themselves.

It knows the message; nothing of links or gRPC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Protocol

from layerwire.v1 import layerwire_pb2
from layerwire_server.config import Settings
from layerwire_server.link import MAX_CALLS


class Worker(Protocol):
    """A worker, as far as told here."""

    @property
    def index(self) -> int:
        """Its number."""

    @property
    def live(self) -> bool:
        """Whether it does its work."""

    @property
    def hello(self) -> Mapping[str, Any]:
        """What it told of itself; empty if it never was up."""


def server_info(settings: Settings, workers: Iterable[Worker]) -> layerwire_pb2.GetServerInfoResponse:
    """The answer; of workers that never were up, only that they should be there."""
    told = list(workers)
    first: Mapping[str, Any] = next((worker.hello for worker in told if worker.hello), {})
    return layerwire_pb2.GetServerInfoResponse(
        version=version("layerwire"),
        torch_version=first.get("torch_version", ""),
        operators=sorted(first.get("operators", ())),
        numerics={name: str(value) for name, value in first.get("numerics", {}).items()},
        workers=[
            layerwire_pb2.Worker(
                index=worker.index,
                device=worker.hello.get("device", ""),
                device_name=worker.hello.get("device_name", ""),
                healthy=worker.live,
            )
            for worker in told
        ],
        limits=layerwire_pb2.Limits(
            max_message_bytes=settings.max_message_bytes,
            max_output_bytes=settings.max_output_bytes,
            max_call_operations=int(settings.max_call_operations),
            max_queue_calls=settings.max_queue_calls,
            max_queue_bytes=settings.max_queue_bytes,
            max_requests_in_flight=settings.max_requests_in_flight,
            max_bytes_in_flight=settings.max_bytes_in_flight,
            max_weights_bytes=settings.max_weights_bytes,
            max_message_calls=MAX_CALLS,
            max_program_bytes=settings.max_program_bytes,
            max_store_bytes=settings.max_store_bytes,
        ),
    )
