"""A client of the server that all tests share."""

from tests.through_server.inference.conftest import client

__all__ = ["client"]
