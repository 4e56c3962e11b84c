"""A server of one's own for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.transport.fake_server import FakeServer


@pytest.fixture
def serve() -> Iterator[Callable[..., FakeServer]]:
    """Starts servers that end with the test."""
    servers: list[FakeServer] = []

    def start(*args, **options) -> FakeServer:
        server = FakeServer(*args, **options)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve) -> FakeServer:
    """One that answers at once."""
    return serve()
