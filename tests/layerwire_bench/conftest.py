"""A client of the server that all tests share."""

from tests.inference.conftest import client

__all__ = ["client"]
