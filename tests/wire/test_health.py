"""The bytes of grpc.health.v1 are those of the package's messages."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2

from layerwire.wire import health

STATUS = health_pb2.HealthCheckResponse


@pytest.mark.parametrize("service", ["", "layerwire.v1.LayerwireService", "ü" * 100])
def test_requests(service):
    assert health.request(service) == health_pb2.HealthCheckRequest(service=service).SerializeToString()


def test_answers():
    answers = {STATUS(status=value).SerializeToString(): name for name, value in STATUS.ServingStatus.items()}
    assert {answer: name.lower().replace("_", " ") for answer, name in answers.items()} == health.STATUSES | {
        b"\x08\x03": "service unknown"
    }
    assert [name for answer, name in answers.items() if health.is_serving(answer)] == ["SERVING"]


def test_methods():
    service = health_pb2.DESCRIPTOR.services_by_name["Health"]
    assert {method.name: f"/{service.full_name}/{method.name}" for method in service.methods}.items() >= {
        "Check": health.CHECK, "Watch": health.WATCH
    }.items()  # fmt: skip
