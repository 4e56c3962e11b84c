"""The client of the tests here."""

from __future__ import annotations

from tests.through_server.conftest import client

__all__ = ["client"]
