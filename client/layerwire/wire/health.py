"""grpc.health.v1 in bytes: its methods, what is asked and what is answered, each a message of one field.

It knows that protocol alone: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. The SDK needs no package
for it; the server has the generated classes, for reflection shows them, and a test compares the two.
"""

from __future__ import annotations

from layerwire.wire.protobuf import field

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
SERVING = b"\x08\x01"
STATUSES = {b"": "unknown", SERVING: "serving", b"\x08\x02": "not serving", b"\x08\x03": "unknown service"}


def request(service: str = "") -> bytes:
    """The HealthCheckRequest for a service, "" for the server as a whole."""
    return field(1, service.encode()) if service else b""


def is_serving(answer: bytes) -> bool:
    """Whether a HealthCheckResponse says so."""
    return answer.startswith(SERVING)
