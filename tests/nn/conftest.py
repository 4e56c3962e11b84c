"""One server for all tests here."""

from __future__ import annotations

from tests.through_server.conftest import client, no_worker_dies, served

__all__ = ["client", "no_worker_dies", "served"]
