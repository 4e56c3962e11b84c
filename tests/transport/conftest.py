"""A server of one's own for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.transport.fake_server import FakeServer


@pytest.fixture
def takes_groups() -> bool:
    """Whether servers take groups of calls; modules whose rules hold either way have both."""
    return False


@pytest.fixture
def serve(takes_groups) -> Iterator[Callable[..., FakeServer]]:
    """Starts servers that end with the test."""
    servers: list[FakeServer] = []

    def start(*args, **options) -> FakeServer:
        server = FakeServer(*args, **options)
        server.takes_groups = takes_groups
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve) -> FakeServer:
    """One that answers at once."""
    return serve()
